//! The admin socket of every daemon, and the sub-commands that speak to it.
//!
//! HTTP + JSON on a Unix socket: `curl --unix-socket /run/gitspaces/runner/admin.sock http://localhost/readyz`. Root, the daemon's own user
//! and the socket's group get in, by file mode and by the peer's credentials.
//!
//! | method, path | answer |
//! |---|---|
//! | `GET /healthz` | 200 while every main loop answers, else 503 with the names of those that do not |
//! | `GET /readyz` | [`Readiness`]: 200 or 503, with every check |
//! | `GET /status` | what the daemon is doing |
//! | `GET /tasks` | what it holds |
//! | `GET /metrics` | OpenMetrics text |
//! | `GET /drain` | [`DrainState`] |
//! | `POST /drain` | [`DrainRequest`]; takes nothing more, until `POST /undrain` |
//! | `GET`, `PUT /log-level` | [`LogLevel`] |
//! | `POST /reconnect` | 202; makes its link anew |
//! | `GET /support-bundle` | a tar file without secrets |
//!
//! Responsible for: the routes, what their answers look like, the commands; and the command line of the daemons, as far as it is the same of all
//! ([`Program`]). What is checked, shown and drained is the daemon's, behind
//! [`Subject`].
//!
//! Invariants: a check's code is stable and has its paragraph in `docs/operations.md`; no secret is in a support bundle.

mod bundle;
mod call;
mod check;
mod command;
mod disk;
mod drain;
mod examine;
mod http_body;
pub mod metrics;
mod program;
mod redact;
mod serve;
mod start;
mod subject;
mod words;

pub use check::{Check, Readiness, Severity};
pub use command::{
    Command, CommandError, Drain, DrainBy, Link, Look, Output, RunAdmin, doctor, run, say_json,
};
pub use disk::{DiskError, look_at_disk, nearest};
pub use drain::{DrainFile, DrainFileError, DrainRequest, DrainState};
pub use program::{
    AdminSocketError, Common, ConfigCommand, Program, ProgramError, RuntimeError, admin_token,
    ask_admin, ask_daemon, common, lifecycle, load, log, main, probe, runtime, say,
};
pub use prometheus_client::registry::Registry;
pub use serve::{AdminSocket, BoundAdmin, LogLevel, group_of};
pub use subject::{About, Subject, owner_only};
