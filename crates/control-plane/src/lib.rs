//! The control plane: API, orchestrator, hub, identity, gateways' link, and the pages of the login.
//!
//! Responsible for: who may do what ([`identity`]), what is desired and observed of every gitspace ([`orchestrator`]), the server end of the
//! delegates' links ([`hub`]), what gateways know ([`gateways`]), the public API ([`api`]). [`ControlPlane::build`] makes all of it,
//! [`ControlPlane::start`] serves it.
//!
//! Invariants: it knows nothing of runners, Docker or SQL; no secret is stored but as a hash or sealed; nothing that a request says
//! becomes a redirect, a path or a command line unchecked.
//!
//! | file in `state_dir` | is |
//! |---|---|
//! | `control-plane.db` | the database |
//! | `seal.key` | the key of what is sealed in it; belongs into the same backup |
//! | `admin-token` | a token for the first administrator to log in with; holds for a day, and is removed once an administrator has another one |

mod api;
mod app;
mod config;
mod gateways;
mod hub;
mod identity;
pub mod orchestrator;
mod origins;
mod pages;
mod serve;
mod state;
mod streams;
#[cfg(test)]
mod tests;
mod view;

pub use app::{
    BuildError, ControlPlane, Deps, EmbeddedGateway, MintError, StartError, look_at_seal_key,
};
pub use config::{ConfigError, ControlPlaneConfig};
pub use hub::RefusedPeer;
pub use identity::bootstrap::{Bootstrap, BootstrapError};
pub use identity::first_start::FirstStartError;
pub use identity::grants::GrantKeyError;
pub use identity::seal::SealError;
pub use origins::OriginError;
pub use view::{ControlPlaneView, DelegateCounts, OpenTask};
