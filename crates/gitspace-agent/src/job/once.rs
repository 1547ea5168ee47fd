//! Commands that are not run again once they have ended well, whoever asks and whatever they have forgotten.
//!
//! A mark in the container's own files says so: it is there as long as the container is, over its stops and over restarts of the agent.

use super::{Job, command};
use crate::agent::Agent;
use camino::{Utf8Path, Utf8PathBuf};
use std::{fs::File, io, sync::Arc};
use wire::agent::{AGENT_DIR, AGENT_RUN_DIR, CommandJob, JobOutcome};

pub(super) async fn run(agent: &Arc<Agent>, job: &Arc<Job>, command: CommandJob) -> JobOutcome {
    if !command.once {
        return command::run(agent, job, command).await;
    }
    let mark = marks(&agent.run_dir).join(format!("{}.done", job.id));
    if mark.exists() {
        return JobOutcome::Done {
            detail: Some("it was done before".to_owned()),
        };
    }
    let outcome = command::run(agent, job, command).await;
    if matches!(outcome, JobOutcome::Done { .. })
        && let Err(error) = leave(&mark)
    {
        // Whoever asked writes it down too, and asks again only where that is lost.
        tracing::warn!(%mark, %error, "A command that is done leaves no mark");
    }
    outcome
}

/// The folder of the agent's socket is made anew at each start of the container; this one is not.
fn marks(run_dir: &Utf8Path) -> Utf8PathBuf {
    if run_dir == AGENT_RUN_DIR {
        Utf8Path::new(AGENT_DIR).join("once")
    } else {
        run_dir.join("once")
    }
}

fn leave(mark: &Utf8Path) -> io::Result<()> {
    if let Some(folder) = mark.parent() {
        std::fs::create_dir_all(folder)?;
    }
    File::create(mark)?.sync_all()
}
