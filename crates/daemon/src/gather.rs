//! Everything that is wrong, told at once.

/// Keeps errors aside, so that what follows is looked at too.
#[derive(Debug)]
pub struct Gather<E>(Vec<E>);

/// One error or more, in the order in which they were found.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong<E> {
    pub first: E,
    pub others: Vec<E>,
}

impl<E> Default for Gather<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<E> Gather<E> {
    pub fn push(&mut self, error: E) {
        self.0.push(error);
    }

    /// The value, where there is one.
    pub fn keep<T, F: Into<E>>(&mut self, result: Result<T, F>) -> Option<T> {
        result.map_err(|error| self.push(error.into())).ok()
    }

    /// # Errors
    /// Something is wrong.
    pub fn finish(self) -> Result<(), Wrong<E>> {
        let mut all = self.0.into_iter();
        match all.next() {
            None => Ok(()),
            Some(first) => Err(Wrong {
                first,
                others: all.collect(),
            }),
        }
    }
}

impl<E> Wrong<E> {
    #[must_use]
    pub fn map<F>(self, mut map: impl FnMut(E) -> F) -> Wrong<F> {
        Wrong {
            first: map(self.first),
            others: self.others.into_iter().map(map).collect(),
        }
    }
}

impl<E> From<E> for Wrong<E> {
    fn from(first: E) -> Self {
        Self {
            first,
            others: Vec::new(),
        }
    }
}

impl<E> IntoIterator for Wrong<E> {
    type Item = E;
    type IntoIter = std::iter::Chain<std::iter::Once<E>, std::vec::IntoIter<E>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.first).chain(self.others)
    }
}
