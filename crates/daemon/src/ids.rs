//! Ids as a parameter.

use newtype_uuid::{GenericUuid as _, TypedUuid, TypedUuidKind};
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};
use uuid::Uuid;

/// Where fresh ids come from.
pub trait Ids: fmt::Debug + Send + Sync + 'static {
    fn uuid(&self) -> Uuid;
}

/// Typed ids of any source, `dyn` ones too.
pub trait IdsExt: Ids {
    fn typed<K: TypedUuidKind>(&self) -> TypedUuid<K> {
        TypedUuid::from_untyped_uuid(self.uuid())
    }
}

impl<I: Ids + ?Sized> IdsExt for I {}

/// Random ids (UUID version 4).
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where random ids are made"
    )]
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }
}

/// 1, 2, 3 .. as valid version 4 ids. For tests.
#[derive(Debug, Default)]
pub struct SequentialIds {
    last: AtomicU64,
}

impl Ids for SequentialIds {
    fn uuid(&self) -> Uuid {
        let next = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        uuid::Builder::from_random_bytes(u128::from(next).to_be_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequential_ids_are_the_same_in_every_run() {
        let ids: &dyn Ids = &SequentialIds::default();
        assert_eq!(
            ids.uuid().to_string(),
            "00000000-0000-4000-8000-000000000001"
        );
        assert_eq!(
            ids.uuid().to_string(),
            "00000000-0000-4000-8000-000000000002"
        );
    }
}
