//! What every daemon needs, and nothing of what any daemon does.
//!
//! Responsible for: the life of a process from start to drained stop ([`Lifecycle`]), configuration files
//! ([`settings`]), logs ([`logging`]), words and exit codes for people ([`report`]), time and ids as parameters
//! ([`Clock`], [`Ids`]), and files that are whole or not there ([`write_atomic`]).
//!
//! Invariant: nothing here reads a clock, an environment variable or randomness but through the types named for it.
//!
//! Admin sockets are the daemons' own, through `local-rpc`.

mod atomic_file;
mod clock;
mod error_chain;
mod exit;
mod ids;
mod lifecycle;
pub mod logging;
pub mod settings;

pub use atomic_file::{WriteError, write_atomic};
pub use clock::{Clock, ManualClock, SystemClock};
pub use error_chain::ErrorChain;
pub use exit::{Exit, Hint, report};
pub use ids::{Ids, IdsExt, RandomIds, SequentialIds};
pub use lifecycle::{Lifecycle, Tasks};
pub use settings::{Loaded, Loader, SettingsError};
