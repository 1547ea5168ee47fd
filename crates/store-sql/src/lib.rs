//! The store in SQL: SQLite today, with queries that PostgreSQL takes too (`$1` placeholders, `ON CONFLICT`, `RETURNING`, integer times).
//!
//! Invariants: one connection writes, in transactions that take the write lock at their start, so that none fails half-way for a lock; what was
//! answered is on the disk (`synchronous = FULL`). A database of a later version is refused, never changed.
//!
//! It decides nothing: what a row means is for `store` and the control plane.

mod access;
mod catalog;
mod commit;
mod delegates;
mod error;
mod gitspaces;
mod open;
mod ports;
mod row;
mod ssh_keys;
mod users;

pub use open::{OpenError, SqlStore};
