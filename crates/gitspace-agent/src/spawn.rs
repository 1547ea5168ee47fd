//! Starting processes as another user, in a session of their own, and ending them.
//!
//! Invariant: what is started here leads its own process group, so that signalling the group reaches all that did not leave it.

use crate::{account::Account, environment::Environment};
use nix::{
    libc,
    sys::{
        prctl,
        signal::{Signal, killpg},
    },
    unistd::{Gid, Pid, Uid, setgid, setgroups, setsid, setuid},
};
use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
};
use tokio::process::{Child, Command};
use wire::failure::{Failure, FailureCode};

/// A process to be.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Program {
    pub(crate) argv: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) env: Environment,
    pub(crate) account: Account,
}

/// Where its input and output go.
#[derive(Debug)]
pub(crate) enum Streams {
    /// Output in pipes, no input.
    Output,
    /// All three in pipes.
    Pipes,
    /// The slave of a PTY, which becomes its controlling terminal.
    Tty(OwnedFd),
}

/// Whether the process is killed when the one that started it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bond {
    DiesWithUs,
    Outlives,
}

impl Program {
    /// Starts it.
    pub(crate) fn spawn(&self, streams: Streams, bond: Bond) -> Result<Child, Failure> {
        let Some((name, arguments)) = self.argv.split_first().filter(|(name, _)| !name.is_empty())
        else {
            return Err(Failure::new(
                FailureCode::PreconditionFailed,
                "the command is empty",
            ));
        };
        if self.argv.iter().any(|argument| argument.contains('\0')) {
            return Err(Failure::new(
                FailureCode::PreconditionFailed,
                "the command holds a NUL character",
            ));
        }
        match std::fs::metadata(&self.cwd) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(self.bad_cwd("it is not a folder")),
            Err(error) => return Err(self.bad_cwd(&error.to_string())),
        }
        let mut command = Command::new(name);
        command
            .args(arguments)
            .env_clear()
            .envs(&self.env)
            .current_dir(&self.cwd);
        let has_tty = matches!(streams, Streams::Tty(_));
        match streams {
            Streams::Output => {
                command
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
            }
            Streams::Pipes => {
                command
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
            }
            Streams::Tty(slave) => {
                let copy = |slave: &OwnedFd| {
                    slave
                        .try_clone()
                        .map_err(|error| cannot_start(name, &error))
                };
                command
                    .stdin(copy(&slave)?)
                    .stdout(copy(&slave)?)
                    .stderr(slave);
            }
        }
        let switch = Switch::to(&self.account);
        // SAFETY: between fork and exec the closure makes system calls only: it allocates nothing, takes no lock, and touches no
        // memory but its own captured values.
        #[expect(unsafe_code, reason = "nothing safe runs between fork and exec")]
        unsafe {
            command.pre_exec(move || prepare_child(&switch, has_tty, bond));
        }
        command.spawn().map_err(|error| cannot_start(name, &error))
    }

    fn bad_cwd(&self, why: &str) -> Failure {
        Failure::new(
            FailureCode::PreconditionFailed,
            format!("the working folder `{}` cannot be used", self.cwd),
        )
        .detail(why)
        .hint("check the workspaceFolder of devcontainer.json")
    }
}

fn cannot_start(name: &str, error: &io::Error) -> Failure {
    let failure = match error.kind() {
        io::ErrorKind::NotFound => Failure::new(
            FailureCode::ToolMissing,
            format!("`{name}` (or its interpreter) is not in the image"),
        )
        .hint(format!(
            "use an image that contains `{name}`, or install it there"
        )),
        io::ErrorKind::PermissionDenied => Failure::new(
            FailureCode::PreconditionFailed,
            format!("`{name}` may not be run by this user"),
        )
        .hint("check its mode, the mount options, and the remoteUser of devcontainer.json"),
        _ => Failure::new(FailureCode::Internal, format!("`{name}` cannot be started")),
    };
    failure.detail(error.to_string())
}

/// What is left to change of our own identity, made ready before the fork.
struct Switch {
    ids: Option<(Vec<Gid>, Gid, Uid)>,
}

impl Switch {
    fn to(account: &Account) -> Self {
        let ours = (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
        // Unprivileged, as in a rootless container, the own identity is all there is.
        if ours == (account.uid, account.gid)
            && (ours.0 != 0 || account.groups.iter().all(|gid| *gid == 0))
        {
            return Self { ids: None };
        }
        Self {
            ids: Some((
                account.groups.iter().copied().map(Gid::from_raw).collect(),
                Gid::from_raw(account.gid),
                Uid::from_raw(account.uid),
            )),
        }
    }
}

/// Runs in the child. Must not allocate.
fn prepare_child(switch: &Switch, has_tty: bool, bond: Bond) -> io::Result<()> {
    // What somebody above us ignores would stay ignored, and `^C` without effect.
    Signal::iterator().for_each(reset);
    setsid()?;
    if has_tty {
        // SAFETY: the call takes no pointer; the descriptor is our standard input.
        #[expect(unsafe_code, reason = "no safe wrapper of TIOCSCTTY exists")]
        let result = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    if let Some((groups, gid, uid)) = &switch.ids {
        setgroups(groups)?;
        setgid(*gid)?;
        setuid(*uid)?;
    }
    // After the change of identity, which clears it.
    if bond == Bond::DiesWithUs {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
    }
    Ok(())
}

/// Runs in the child. Two signals refuse it, because the default action is all they have.
fn reset(signal: Signal) {
    #[expect(
        unsafe_code,
        reason = "changing a signal's action is unsafe for any action"
    )]
    // SAFETY: the default action runs no code of ours.
    let _previous = unsafe { libc::signal(signal as libc::c_int, libc::SIG_DFL) };
}

/// A new PTY whose slave belongs to the account, so that the user's programs can open it by its name.
pub(crate) fn own_tty(slave: &OwnedFd, account: &Account) {
    if let Err(error) = nix::unistd::fchown(slave.as_fd(), Some(Uid::from_raw(account.uid)), None) {
        tracing::debug!(%error, "The terminal stays root's");
    }
}

/// The exit code as a shell counts it: 128 + n after signal n.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}

/// The process group that `child` leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group(Pid);

impl Group {
    /// `None` once the child has been waited for: its number may be somebody else's.
    pub(crate) fn of(child: &Child) -> Option<Self> {
        let pid = i32::try_from(child.id()?).ok()?;
        (pid > 1).then_some(Self(Pid::from_raw(pid)))
    }

    pub(crate) fn signal(self, signal: Signal) {
        match killpg(self.0, signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => tracing::warn!(%error, ?signal, "Cannot signal a process group"),
        }
    }
}
