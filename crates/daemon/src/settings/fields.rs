//! Which keys a table of the configuration has: asked of its type, to tell what a key that it does not have may have been meant for.

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, Error as _, IntoDeserializer as _, MapAccess, SeqAccess,
        Visitor, value::Error,
    },
    forward_to_deserialize_any,
};
use std::cell::Cell;

/// Keys that nobody has mistyped beyond that are not offered.
const MAX_DISTANCE: usize = 3;

/// The keys of the table at `path` in a `T`. None where there is no table.
pub(super) fn fields_at<T: DeserializeOwned>(path: &[String]) -> &'static [&'static str] {
    let found = Cell::new(&[][..]);
    // What is deserialized has one key at most in each table: it is asked for its keys, not for itself.
    drop(T::deserialize(Ask {
        path,
        found: &found,
    }));
    found.get()
}

/// The one that is most like `key`, where any is.
pub(super) fn nearest(key: &str, fields: &[&'static str]) -> Option<&'static str> {
    let limit = (key.chars().count() / 3).clamp(1, MAX_DISTANCE);
    fields
        .iter()
        .map(|field| (strsim::damerau_levenshtein(key, field), *field))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, field)| field)
}

struct Ask<'a> {
    path: &'a [String],
    found: &'a Cell<&'static [&'static str]>,
}

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.path.is_empty() {
            self.found.set(fields);
        }
        visitor.visit_map(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("it is no table"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct enum
        identifier ignored_any
    }
}

impl<'a> Ask<'a> {
    /// One step further down. The whole path was gone when there is none.
    fn step(&mut self) -> Option<&'a str> {
        let (first, rest) = self.path.split_first()?;
        self.path = rest;
        Some(first)
    }

    const fn below(&self) -> Self {
        Self {
            path: self.path,
            found: self.found,
        }
    }
}

impl<'de> MapAccess<'de> for Ask<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.step()
            .map(|key| seed.deserialize(key.into_deserializer()))
            .transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let value = seed.deserialize(self.below())?;
        self.path = &[];
        Ok(value)
    }
}

impl<'de> SeqAccess<'de> for Ask<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        if self.step().is_none() {
            return Ok(None);
        }
        let value = seed.deserialize(self.below())?;
        self.path = &[];
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Outer {
        _inner: Option<Inner>,
        _many: Vec<Inner>,
    }

    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "kebab-case")]
    struct Inner {
        _state_dir: String,
        _deep: Deep,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Deep {
        _limit: u32,
    }

    #[test]
    fn the_keys_of_a_table_are_its_types_own_however_deep() {
        let at = |path: &[&str]| {
            let path: Vec<_> = path.iter().map(|key| (*key).to_owned()).collect();
            fields_at::<Outer>(&path)
        };
        assert_eq!(at(&[]), ["_inner", "_many"]);
        assert_eq!(at(&["_inner"]), ["-state-dir", "-deep"]);
        assert_eq!(at(&["_many", "0", "-deep"]), ["_limit"]);
        assert!(at(&["_many", "0", "-deep", "_limit"]).is_empty());
        assert!(at(&["nowhere", "at", "all"]).is_empty());
    }

    #[test]
    fn only_a_key_that_is_like_one_is_told_for_it() {
        let fields = ["state_dir", "listen", "log", "tags"];
        for (key, near) in [
            ("state-dir", Some("state_dir")),
            ("statedir", Some("state_dir")),
            ("lsiten", Some("listen")),
            ("tag", Some("tags")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(key, &fields), near, "{key}");
        }
    }
}
