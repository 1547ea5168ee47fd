//! Clone jobs: from a URL to a whole working tree, in the sandbox, as the agent's own user.
//!
//! The repository is hostile: only http, https and ssh are spoken (submodules and redirects included), no hook and no prompt runs, the
//! image's own git settings for the user are not read. Credentials reach git through the helper alone.
//!
//! Invariant: the destination exists only once the clone is whole, submodules included.

use super::{
    Job,
    command::{Ended, follow},
    destination::{Destination, Found},
    git_error,
    output::Tail,
    ssh::{self, KnownHosts},
};
use crate::{
    account::Account,
    agent::{self, Agent},
    environment::Environment,
    spawn::{Bond, Program, Streams, exit_code},
};
use camino::Utf8Path;
use nix::fcntl::OFlag;
use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    sync::Arc,
};
use wire::{
    agent::{CloneJob, JobOutcome},
    failure::{Failure, FailureCode},
    gitspace::RepoSpec,
    task::LogStream,
    text::GitRef,
};

/// Given before the sub-command, so that they hold for every git that git starts and are not kept in the clone.
const SETTINGS: &[&str] = &[
    "protocol.allow=never",
    "protocol.http.allow=always",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.askPass=",
    "advice.detachedHead=false",
    // A server that stalls for a minute does not answer.
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
    // An empty helper forgets those of the image.
    "credential.helper=",
    "credential.useHttpPath=false",
];
/// Of a file that is only looked at.
const MAX_PEEK: u64 = 1024 * 1024;

pub(super) async fn run(agent: &Arc<Agent>, job: &Arc<Job>, clone: CloneJob) -> JobOutcome {
    match Clone::new(agent, job, clone).await {
        Ok(Some(clone)) => {
            let ended = clone.run().await;
            if ended.is_err() {
                clone.tidy_up().await;
            }
            match ended {
                Ok(detail) => JobOutcome::Done { detail },
                Err(Stopped::Cancelled) => JobOutcome::Cancelled {},
                Err(Stopped::Failed { exit_code, failure }) => JobOutcome::Failed {
                    exit_code,
                    failure: *failure,
                },
            }
        }
        Ok(None) => JobOutcome::Done { detail: None },
        Err(Stopped::Cancelled) => JobOutcome::Cancelled {},
        Err(Stopped::Failed { exit_code, failure }) => JobOutcome::Failed {
            exit_code,
            failure: *failure,
        },
    }
}

enum Stopped {
    Cancelled,
    Failed {
        exit_code: Option<i32>,
        failure: Box<Failure>,
    },
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed {
            exit_code: None,
            failure: Box::new(failure),
        }
    }
}

struct Clone {
    agent: Arc<Agent>,
    job: Arc<Job>,
    repo: RepoSpec,
    destination: Destination,
    env: Environment,
    account: Account,
    /// Whether the image has git-lfs.
    lfs: bool,
    /// Named in the environment.
    _known_hosts: KnownHosts,
}

impl Clone {
    /// `None` where the clone is there already.
    async fn new(
        agent: &Arc<Agent>,
        job: &Arc<Job>,
        clone: CloneJob,
    ) -> Result<Option<Self>, Stopped> {
        let destination = Destination::new(&clone.destination, &job.id)?;
        let found = blocking({
            let destination = destination.clone();
            move || destination.prepare()
        })
        .await?;
        if matches!(found, Found::Clone) {
            job.log
                .system(&format!("{} is cloned already", destination.path));
            return Ok(None);
        }
        let account = agent::resolve(&nix::unistd::geteuid().to_string())
            .map_err(|problem| Failure::new(FailureCode::Internal, problem.message))?;
        let known_hosts = blocking({
            let (run_dir, id) = (agent.run_dir.clone(), job.id.clone());
            move || KnownHosts::write(&run_dir, &id, &clone.ssh)
        })
        .await?;
        let env = environment(agent, &account, &known_hosts);
        let path = env.get("PATH").map(String::as_str).unwrap_or_default();
        Ok(Some(Self {
            lfs: in_path(path, "git-lfs"),
            agent: Arc::clone(agent),
            job: Arc::clone(job),
            repo: clone.repo,
            destination,
            env,
            account,
            _known_hosts: known_hosts,
        }))
    }

    async fn run(&self) -> Result<Option<String>, Stopped> {
        match &self.repo.reference {
            None => self.clone_branch(None).await?,
            Some(reference) if reference.is_commit() => {
                self.clone_commit(reference.as_str()).await?;
            }
            Some(reference) => {
                let cloned = self.clone_branch(Some(reference)).await;
                match cloned {
                    // What is no branch and no tag may be a commit's short name.
                    Err(Stopped::Failed { failure, .. })
                        if failure.code == FailureCode::GitRefNotFound
                            && is_short_commit(reference) =>
                    {
                        self.tidy_up().await;
                        self.clone_commit(reference.as_str()).await?;
                    }
                    other => other?,
                }
            }
        }
        self.large_files().await?;
        let destination = self.destination.clone();
        blocking(move || {
            let detail = describe_head(&destination.partial);
            destination.finish()?;
            Ok(detail)
        })
        .await
        .map_err(Stopped::from)
    }

    async fn clone_branch(&self, reference: Option<&GitRef>) -> Result<(), Stopped> {
        let mut arguments = vec!["clone", "--progress", "--recurse-submodules"];
        if let Some(reference) = reference {
            let name = reference.as_str();
            let short = name
                .strip_prefix("refs/heads/")
                .or_else(|| name.strip_prefix("refs/tags/"));
            arguments.extend(["--branch", short.unwrap_or(name)]);
        }
        arguments.extend([
            "--",
            self.repo.url.as_str(),
            self.destination.partial.as_str(),
        ]);
        self.git(None, &arguments).await
    }

    async fn clone_commit(&self, commit: &str) -> Result<(), Stopped> {
        let partial = self.destination.partial.as_str();
        let url = self.repo.url.as_str();
        self.git(
            None,
            &["clone", "--progress", "--no-checkout", "--", url, partial],
        )
        .await?;
        let object = format!("{commit}^{{commit}}");
        let known = self
            .git(
                Some(partial),
                &[
                    "rev-parse",
                    "--quiet",
                    "--verify",
                    "--end-of-options",
                    &object,
                ],
            )
            .await;
        match known {
            Ok(()) => {}
            Err(Stopped::Cancelled) => return Err(Stopped::Cancelled),
            // Not on any branch: some servers give it when it is asked for by name.
            Err(Stopped::Failed { .. }) => {
                self.git(Some(partial), &["fetch", "--progress", "origin", commit])
                    .await?;
            }
        }
        self.git(
            Some(partial),
            &["checkout", "--progress", "--detach", &object],
        )
        .await?;
        self.git(
            Some(partial),
            &["submodule", "update", "--progress", "--init", "--recursive"],
        )
        .await
    }

    /// Large files came with the checkout where git-lfs is there; what is left is to have the clone remember it.
    async fn large_files(&self) -> Result<(), Stopped> {
        let partial = self.destination.partial.clone();
        if !blocking(move || Ok(uses_lfs(&partial))).await? {
            return Ok(());
        }
        if self.lfs {
            return self
                .git(
                    Some(self.destination.partial.as_str()),
                    &["lfs", "install", "--local", "--skip-repo"],
                )
                .await;
        }
        self.job.log.system(
            "the repository keeps large files with Git LFS, and `git-lfs` is not in the image that clones: they are left as pointers; \
             install git-lfs and run `git lfs pull`",
        );
        Ok(())
    }

    async fn git(&self, folder: Option<&str>, arguments: &[&str]) -> Result<(), Stopped> {
        if self.job.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        let mut argv = vec!["git".to_owned()];
        let mut set = |setting: &str| argv.extend(["-c".to_owned(), setting.to_owned()]);
        SETTINGS.iter().for_each(|setting| set(setting));
        set(&format!(
            "credential.helper={}",
            self.agent.credential_helper(Some(&self.job.id))
        ));
        if self.lfs {
            set("filter.lfs.process=git-lfs filter-process");
            set("filter.lfs.smudge=git-lfs smudge -- %f");
            set("filter.lfs.clean=git-lfs clean -- %f");
            set("filter.lfs.required=true");
        }
        if let Some(folder) = folder {
            argv.extend(["-C".to_owned(), folder.to_owned()]);
        }
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let program = Program {
            argv,
            cwd: "/".to_owned(),
            env: self.env.clone(),
            account: self.account.clone(),
        };
        let child = program
            .spawn(Streams::Output, Bond::DiesWithUs)
            .map_err(|failure| {
                if failure.code == FailureCode::ToolMissing {
                    failure.hint("clone with a default image that contains git")
                } else {
                    failure
                }
            })?;
        let tail = Tail::default();
        match follow(&self.agent, &self.job, child, None, &tail).await {
            Ended::Cancelled => Err(Stopped::Cancelled),
            Ended::Exited(status) if status.success() => Ok(()),
            Ended::Exited(status) => {
                let words = tail.text();
                let failure = if ssh::is_unknown_key(&words) {
                    ssh::unknown_key(&self.repo, &self.host_keys().await, &words)
                } else {
                    git_error::classify(&self.repo, &words)
                };
                Err(Stopped::Failed {
                    exit_code: Some(exit_code(status)),
                    failure: Box::new(failure),
                })
            }
        }
    }

    /// What the server says are its keys: for a person to compare, and trusted by nobody.
    async fn host_keys(&self) -> Vec<ssh::HostKey> {
        let Some(argv) = ssh::scan_argv(&self.repo) else {
            return Vec::new();
        };
        let program = Program {
            argv,
            cwd: "/".to_owned(),
            env: self.env.clone(),
            account: self.account.clone(),
        };
        let Ok(child) = program.spawn(Streams::Output, Bond::DiesWithUs) else {
            return Vec::new();
        };
        let tail = Tail::default();
        follow(&self.agent, &self.job, child, None, &tail).await;
        ssh::parse_scan(&tail.text())
    }

    async fn tidy_up(&self) {
        let destination = self.destination.clone();
        if let Err(failure) = blocking(move || destination.remove_partials()).await {
            // The next attempt tries again.
            self.job
                .log
                .output(LogStream::System, &format!("{failure}\n"));
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, BlockingFailure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| BlockingFailure(Failure::new(FailureCode::Internal, error.to_string())))?
        .map_err(BlockingFailure)
}

/// So that `?` reaches [`Stopped`] from both kinds of error.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct BlockingFailure(Failure);

impl From<BlockingFailure> for Stopped {
    fn from(failure: BlockingFailure) -> Self {
        failure.0.into()
    }
}

/// The container's, without what would steer git, and with what keeps it from asking anybody.
fn environment(agent: &Agent, account: &Account, known_hosts: &KnownHosts) -> Environment {
    let ssh = known_hosts.command();
    let mut env: Environment = crate::environment::of_user(agent, account, None, [])
        .into_iter()
        .filter(|(name, _)| !name.starts_with("GIT_") && !name.starts_with("SSH_"))
        .collect();
    for (name, value) in [
        ("LC_ALL", "C"),
        ("GIT_TERMINAL_PROMPT", "0"),
        // Set and empty: no program is asked.
        ("GIT_ASKPASS", ""),
        ("SSH_ASKPASS", ""),
        ("GIT_SSH_COMMAND", &ssh),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ALLOW_PROTOCOL", "http:https:ssh"),
        ("GIT_OPTIONAL_LOCKS", "0"),
    ] {
        env.insert(name.to_owned(), value.to_owned());
    }
    env
}

fn is_short_commit(reference: &GitRef) -> bool {
    let text = reference.as_str();
    (7..40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn in_path(path: &str, program: &str) -> bool {
    path.split(':').any(|folder| {
        fs::metadata(Utf8Path::new(folder).join(program)).is_ok_and(|found| found.is_file())
    })
}

/// Reads a file of the repository, which may be a link to anywhere or a pipe.
fn peek(path: &Utf8Path) -> Option<String> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_PEEK).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn uses_lfs(clone: &Utf8Path) -> bool {
    peek(&clone.join(".gitattributes")).is_some_and(|text| text.contains("filter=lfs"))
}

/// `1a2b3c4 (main)`; files of git's that it has just written itself.
fn describe_head(clone: &Utf8Path) -> Option<String> {
    let git = clone.join(".git");
    let head = peek(&git.join("HEAD"))?;
    let head = head.trim();
    let short = |commit: &str| commit.trim().get(..7).map(str::to_owned);
    let Some(branch) = head.strip_prefix("ref: ") else {
        return short(head);
    };
    let name = branch.strip_prefix("refs/heads/").unwrap_or(branch);
    let loose = peek(&git.join(branch)).as_deref().and_then(short);
    let commit = loose.or_else(|| {
        peek(&git.join("packed-refs"))?
            .lines()
            .find_map(|line| line.strip_suffix(branch).and_then(short))
    });
    Some(match commit {
        Some(commit) => format!("{commit} ({name})"),
        None => format!("empty ({name})"),
    })
}
