//! What every daemon needs, and nothing of what any daemon does.
//!
//! Responsible for: the life of a process from start to drained stop ([`Lifecycle`]), whether its loops turn ([`Pulses`]), sockets
//! that the service manager bound ([`PassedSockets`]), configuration files
//! ([`settings`]), logs ([`logging`]), words and exit codes for people ([`report`]), time and ids as parameters
//! ([`Clock`], [`Ids`]), secrets that the service manager hands over ([`Credentials`]), files that are whole or not
//! there ([`write_atomic`]), one process for one state folder ([`StateLock`]), and places to be killed at ([`fail_point`]).
//!
//! Invariant: nothing here reads a clock, an environment variable or randomness but through the types named for it
//! (a build with the feature `fail-points`, which is for tests alone, reads one variable of its own).
//!
//! The admin socket is the `admin` crate's.

mod activation;
mod atomic_file;
mod clock;
mod credential;
mod error_chain;
mod exit;
mod fail_point;
mod gather;
mod ids;
mod lifecycle;
pub mod logging;
mod pulse;
pub mod settings;
mod state_lock;

pub use activation::{ActivationError, PassedSockets};
pub use atomic_file::{WriteError, write_atomic};
pub use clock::{Clock, ManualClock, SystemClock};
pub use credential::{CredentialError, Credentials, credential};
pub use error_chain::ErrorChain;
pub use exit::{Exit, Hint, report};
pub use fail_point::fail_point;
pub use gather::{Gather, Wrong};
pub use ids::{Ids, IdsExt, RandomIds, SequentialIds};
pub use lifecycle::{Lifecycle, Reloaded, Tasks};
pub use pulse::{Pulse, Pulses, Question};
pub use settings::{Loaded, Loader, Looked, SettingsError, UnknownKey};
pub use state_lock::{StateLock, StateLockError, is_locked};
