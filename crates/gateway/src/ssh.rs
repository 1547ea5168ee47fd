//! SSH: one port at which users reach their gitspaces by name.
//!
//! Two ways, told apart by what the client asks for first:
//! - `ssh <gitspace>@gateway`: the user's transport ends here, another one leads to the gitspace's own SSH server, and the messages of the
//!   connection layer go from one to the other as they are (`splice`). Windows, order and end of every channel are agreed between those two.
//! - `ssh -J gateway <gitspace>`: a channel to `<gitspace>:22` is a raw stream to that server (`jump`). What is in it is encrypted between the
//!   user and the gitspace.
//!
//! | module | what |
//! |---|---|
//! | `listener` | accepts, owns every session's task, sweeps |
//! | `board` | sessions that are open: limits, counts, how each is ended |
//! | `session` | one connection from its first byte to its last |
//! | `login` | who the user is, by a registered key or an access token |
//! | `permit` | a proven credential: asks for grants, and for the next before one expires |
//! | `wake` | a gitspace that does not run is started, and waited for |
//! | `door` | from a grant to a stream, or to words |
//! | `leg` | a transport and its socket |
//! | `keep_alive` | a client that says nothing is asked, and given up |
//!
//! Invariants:
//! - A stream into a gitspace is dialled with an [`Authorized`](crate::Authorized) target, for a grant that the control plane signed for this
//!   gateway, gitspace and user.
//! - A session does not outlive its grant by more than a sweep.
//! - What is held of a session is bounded: a packet and an output of each leg, and a window of each channel of a jump.
//! - Whoever is not let in, or cannot be, is told why in the last message, and the connection ends.

mod board;
mod door;
mod host_key;
mod jump;
mod keep_alive;
mod leg;
mod listener;
mod login;
mod permit;
mod session;
mod splice;
mod wake;

pub(crate) use board::Board;
pub use board::SshView;
pub(crate) use host_key::load_or_make;
pub use host_key::look_at_ssh_host_key;
pub(crate) use listener::{Service, serve};
