//! How many answers that never end may be open.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use wire::ids::UserUuid;

/// Each costs a socket and a query a second at most.
const MAX_STREAMS: usize = 1024;
/// So that one user cannot keep the others out.
const MAX_STREAMS_OF_USER: usize = 64;

/// Counts open streams, by user.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamLimit {
    open: Arc<Mutex<HashMap<UserUuid, usize>>>,
}

/// One open stream; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream {
    limit: StreamLimit,
    user: UserUuid,
}

impl StreamLimit {
    /// `None` where too many are open.
    pub(crate) fn open(&self, user: UserUuid) -> Option<OpenStream> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= MAX_STREAMS {
            return None;
        }
        let of_user = open.entry(user).or_default();
        if *of_user >= MAX_STREAMS_OF_USER {
            return None;
        }
        *of_user += 1;
        Some(OpenStream {
            limit: self.clone(),
            user,
        })
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self
            .limit
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(of_user) = open.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                open.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::{IdsExt as _, SequentialIds};

    #[test]
    fn a_user_has_a_bounded_number_of_streams_and_gets_them_back() {
        let (limit, ids) = (StreamLimit::default(), SequentialIds::default());
        let (one, two) = (ids.typed(), ids.typed());
        let mut open: Vec<_> = (0..MAX_STREAMS_OF_USER)
            .map(|_| limit.open(one).unwrap())
            .collect();
        assert!(limit.open(one).is_none());
        assert!(limit.open(two).is_some());
        open.pop();
        assert!(limit.open(one).is_some());
        drop(open);
        assert!(limit.open.lock().unwrap().is_empty());
    }
}
