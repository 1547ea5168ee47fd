//! How large what goes up can be, and what goes up instead of what is larger.
//!
//! All bodies fit by construction: what the runner says comes in lines of at most [`MAX_LINE`], a refusal's words are bounded by
//! [`Failure::bounded`], an inventory's by `inventory`. Should one not fit all the same, that is said in its place: a follower waits for
//! nothing that never comes.

use link::{SendRefused, limits::MAX_SENT_BODY};
use local_rpc::server::MAX_LINE;
use wire::{
    control::{Inventory, Up},
    failure::{Failure, FailureCode},
    gitspace::Observed,
};

/// The largest body a follower or the watch makes: a line of the runner's stream with what is around it.
pub(super) const LARGEST: usize = MAX_LINE + 64 * 1024;
const _: () = assert!(
    LARGEST <= MAX_SENT_BODY,
    "a line of the runner fits into a frame"
);

pub(super) const fn name(body: &Up) -> &'static str {
    match body {
        Up::TaskEvent { .. } => "task_event",
        Up::TaskRefused { .. } => "task_refused",
        Up::Observed { .. } => "observed",
        Up::Inventory { .. } => "inventory",
        Up::RunnerReady { .. } => "runner_ready",
        Up::Draining { .. } => "draining",
    }
}

/// What is said instead of `body`. It is small, whatever that was.
pub(super) fn instead(body: &Up, refused: &SendRefused) -> Up {
    let failure = |what: &str| {
        Failure::new(
            FailureCode::Internal,
            format!("{what} cannot be sent to the control plane"),
        )
        .detail(refused.to_string())
        .hint("this is a defect of Gitspaces: the delegate's and the runner's logs have more")
    };
    match body {
        // Its events have no gap: without this one none of the later ones would be taken.
        Up::TaskEvent { task, gitspace, .. } => Up::TaskRefused {
            task: *task,
            gitspace: *gitspace,
            failure: failure("an event of the task"),
        },
        Up::TaskRefused { task, gitspace, .. } => Up::TaskRefused {
            task: *task,
            gitspace: *gitspace,
            failure: failure("why the runner refused the task"),
        },
        Up::Observed { observed } => Up::Observed {
            observed: Observed {
                failure: Some(failure("what the runner observed of the gitspace")),
                dev_container: None,
                ..observed.clone()
            },
        },
        Up::Inventory { inventory } => Up::Inventory {
            inventory: Inventory {
                hostname: "cannot be sent to the control plane".to_owned(),
                os: refused.to_string(),
                kernel: String::new(),
                arch: String::new(),
                docker_version: None,
                ..inventory.clone()
            },
        },
        small @ (Up::RunnerReady { .. } | Up::Draining { .. }) => small.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use link::{Class, Client};
    use wire::{
        control::Capacity,
        failure::{MAX_DETAIL, MAX_WORDS},
        gitspace::{DevContainer, Generation, ObservedState},
        ids::{GitspaceUuid, StreamUuid, TaskUuid},
        task::{LogStream, MAX_LOG_TEXT, Phase, TaskEvent, TaskEventKind, TaskOutcome},
    };

    /// Six bytes of JSON for each byte.
    fn worst(length: usize) -> String {
        "\u{1}".repeat(length)
    }

    fn failure(length: usize) -> Failure {
        Failure {
            code: FailureCode::DevcontainerUnsupported,
            message: worst(length),
            detail: Some(worst(length)),
            hint: Some(worst(length)),
        }
    }

    fn observed(failure: Failure, text: usize) -> Observed {
        Observed {
            gitspace: GitspaceUuid::nil(),
            state: ObservedState::Provisioned,
            generation: Generation(u64::MAX),
            revision: u64::MAX,
            at: Timestamp::MAX,
            failure: Some(failure),
            task: Some(TaskUuid::nil()),
            dev_container: Some(DevContainer {
                image: worst(text),
                remote_user: worst(text),
                workspace_folder: worst(text),
                forward_ports: vec![u16::MAX; 64],
                initialized: true,
                ssh_host_key: None,
            }),
        }
    }

    fn inventory(text: usize) -> Inventory {
        Inventory {
            hostname: worst(text),
            os: worst(text),
            kernel: worst(text),
            arch: worst(text),
            cpus: u32::MAX,
            memory_bytes: u64::MAX,
            memory_available_bytes: u64::MAX,
            disk_bytes: u64::MAX,
            disk_available_bytes: u64::MAX,
            docker_version: Some(worst(text)),
            capacity: Capacity {
                gitspaces: u32::MAX,
                cpu_millis: u32::MAX,
                memory_bytes: u64::MAX,
            },
        }
    }

    /// Every body there is, with `text` bytes in each of its texts, `log` in that of a log, and these failures.
    fn every_body(text: usize, log: usize, words: &Failure) -> Vec<Up> {
        let phase = Phase::PostCreateCommand;
        let events = [
            TaskEventKind::PhaseStarted { phase },
            TaskEventKind::PhaseCompleted {
                phase,
                duration_ms: u64::MAX,
                detail: Some(worst(text)),
            },
            TaskEventKind::PhaseFailed {
                phase,
                duration_ms: u64::MAX,
                failure: words.clone(),
            },
            TaskEventKind::Log {
                phase,
                stream: LogStream::Stdout,
                text: worst(log),
            },
            TaskEventKind::Finished {
                outcome: TaskOutcome::Failed {
                    failure: words.clone(),
                },
                observed: Box::new(observed(words.clone(), text)),
            },
        ];
        let events = events.into_iter().map(|event| Up::TaskEvent {
            task: TaskUuid::nil(),
            gitspace: GitspaceUuid::nil(),
            event: TaskEvent {
                seq: u64::MAX,
                at: Timestamp::MAX,
                event,
            },
        });
        events
            .chain([
                Up::TaskRefused {
                    task: TaskUuid::nil(),
                    gitspace: GitspaceUuid::nil(),
                    failure: words.clone(),
                },
                Up::Observed {
                    observed: observed(words.clone(), text),
                },
                Up::Inventory {
                    inventory: inventory(text),
                },
                Up::RunnerReady { ready: true },
                Up::Draining { draining: true },
            ])
            .collect()
    }

    #[test]
    fn every_body_within_the_limits_of_its_texts_fits_into_a_frame() {
        let words = failure(MAX_DETAIL.max(MAX_WORDS)).bounded();
        for body in every_body(4096, MAX_LOG_TEXT, &words) {
            let length = serde_json::to_vec(&body).expect("writes").len();
            assert!(length <= LARGEST, "{}: {length}", name(&body));
        }
    }

    #[test]
    fn of_a_body_that_does_not_fit_the_other_side_hears_why() {
        let too_long = MAX_SENT_BODY / 6 + 1;
        let mut refusals = 0;
        for body in every_body(too_long, too_long, &failure(too_long)) {
            let mut client = Client::new(StreamUuid::nil(), 1);
            let Err(refused) = client.send(&body, Class::Control) else {
                continue;
            };
            refusals += 1;
            let instead = instead(&body, &refused);
            client.send(&instead, Class::Control).expect("fits");
            let json = serde_json::to_string(&instead).expect("writes");
            assert!(
                json.contains("cannot be sent to the control plane") && json.contains("more than"),
                "{}: {json}",
                name(&body)
            );
        }
        assert_eq!(refusals, 7, "all that have texts");
    }
}
