//! Whether a request may reach what it names.

/// Proof that a grant was checked for what is inside; only this module makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authorized<T>(T);

impl<T> Authorized<T> {
    #[must_use]
    pub fn get(&self) -> &T {
        &self.0
    }

    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}
