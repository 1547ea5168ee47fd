//! Ports of gitspaces that others than their owners may come to.

use crate::Answer;
use jiff::Timestamp;
use wire::{
    gitspace::PortVisibility,
    ids::{GitspaceUuid, UserUuid},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPortRecord {
    pub gitspace: GitspaceUuid,
    pub port: u16,
    pub visibility: PortVisibility,
    /// Who shared it.
    pub user: UserUuid,
    pub created: Timestamp,
}

pub trait PortStore {
    /// Also where it was shared otherwise before.
    fn share_port<'a>(&'a self, port: &'a SharedPortRecord) -> Answer<'a, ()>;
    /// Whether it was shared.
    fn unshare_port(&self, gitspace: GitspaceUuid, port: u16) -> Answer<'_, bool>;
    /// Of one gitspace, by port.
    fn shared_ports(&self, gitspace: GitspaceUuid) -> Answer<'_, Vec<SharedPortRecord>>;
    /// Of every gitspace that is not deleted, by port.
    fn all_shared_ports(&self) -> Answer<'_, Vec<SharedPortRecord>>;
}
