//! Users.

use crate::{Answer, PageRequest};
use jiff::Timestamp;
use wire::{api::Role, ids::UserUuid};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    pub id: UserUuid,
    /// Unique.
    pub name: String,
    pub email: Option<String>,
    pub role: Role,
    pub disabled: bool,
    pub created: Timestamp,
}

pub trait UserStore {
    /// `Conflict` where the name is taken.
    fn create_user<'a>(&'a self, user: &'a UserRecord) -> Answer<'a, ()>;
    fn user(&self, id: UserUuid) -> Answer<'_, Option<UserRecord>>;
    fn user_by_name<'a>(&'a self, name: &'a str) -> Answer<'a, Option<UserRecord>>;
    fn users(&self, page: PageRequest) -> Answer<'_, Vec<UserRecord>>;
    fn count_users(&self) -> Answer<'_, u64>;
    /// What is `None` stays. `NotFound` where there is no such user.
    fn update_user(
        &self,
        id: UserUuid,
        role: Option<Role>,
        disabled: Option<bool>,
    ) -> Answer<'_, UserRecord>;
}
