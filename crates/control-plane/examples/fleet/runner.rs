//! The runner behind a simulated delegate: it takes tasks, and ends each at once.

use jiff::Timestamp;
use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::Write as _,
    mem,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};
use tokio::sync::mpsc::UnboundedSender;
use wire::{
    control::{Capacity, Inventory, Up},
    gitspace::{DevContainer, Observed, ObservedState},
    ids::{GitspaceUuid, TaskUuid},
    task::{LogStream, Phase, Task, TaskEvent, TaskEventKind, TaskKind, TaskOutcome},
};

/// What the runners of a fleet do.
#[derive(Debug)]
pub(crate) struct Play {
    /// Each host has room for so many.
    pub(crate) gitspaces: u32,
    /// A task is a phase with so much output, then its end; the end alone where `None`.
    pub(crate) log_lines: Option<usize>,
    /// Where tasks are written down and synced before they are taken.
    pub(crate) journals: Option<camino::Utf8PathBuf>,
    /// Hears of each task that is taken, and written down.
    pub(crate) taken: Option<UnboundedSender<(GitspaceUuid, Instant)>>,
    /// Hears of each task whose end is stored.
    pub(crate) stored: Option<UnboundedSender<GitspaceUuid>>,
}

impl Default for Play {
    fn default() -> Self {
        Self {
            gitspaces: 1,
            log_lines: None,
            journals: None,
            taken: None,
            stored: None,
        }
    }
}

impl Play {
    pub(crate) fn inventory(&self) -> Inventory {
        Inventory {
            hostname: "host".to_owned(),
            os: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            kernel: "6.1.0-30-amd64".to_owned(),
            arch: "x86_64".to_owned(),
            cpus: 8,
            memory_bytes: 1 << 50,
            memory_available_bytes: 1 << 50,
            disk_bytes: 1 << 50,
            disk_available_bytes: 1 << 50,
            docker_version: Some("20.10.24".to_owned()),
            capacity: Capacity {
                gitspaces: self.gitspaces,
                cpu_millis: u32::MAX,
                memory_bytes: 1 << 50,
            },
        }
    }

    fn journal(&self, number: usize) -> Option<File> {
        let folder = self.journals.as_ref()?;
        Some(File::create(folder.join(number.to_string())).unwrap())
    }
}

/// One host's.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) gitspaces: HashMap<GitspaceUuid, Observed>,
    /// Waits for room on the link.
    pub(crate) said: VecDeque<Up>,
    /// Came since the journal was written last.
    pub(crate) given: Vec<Task>,
    /// Tasks whose end is said.
    pub(crate) ended: HashMap<TaskUuid, GitspaceUuid>,
    journal: Option<File>,
}

impl Runner {
    pub(crate) fn new(play: &Play, number: usize) -> Self {
        Self {
            gitspaces: HashMap::new(),
            said: VecDeque::new(),
            given: Vec::new(),
            ended: HashMap::new(),
            journal: play.journal(number),
        }
    }

    /// Takes what was given: written down together, then carried out.
    pub(crate) async fn take(&mut self, play: &Play, revision: &AtomicU64) {
        if self.given.is_empty() {
            return;
        }
        let given = mem::take(&mut self.given);
        if let Some(mut journal) = self.journal.take() {
            let mut lines = Vec::new();
            for task in &given {
                serde_json::to_writer(&mut lines, task).unwrap();
                lines.push(b'\n');
            }
            let written = tokio::task::spawn_blocking(move || {
                journal.write_all(&lines).unwrap();
                journal.sync_data().unwrap();
                journal
            });
            self.journal = Some(written.await.unwrap());
        }
        for task in given {
            if let Some(taken) = &play.taken {
                taken.send((task.gitspace, Instant::now())).unwrap();
            }
            self.carry_out(&task, play, revision);
        }
    }

    fn carry_out(&mut self, task: &Task, play: &Play, revision: &AtomicU64) {
        let phase = Phase::Clone;
        let state = match task.verb.kind() {
            TaskKind::Start | TaskKind::Provision => ObservedState::Running,
            TaskKind::Stop => ObservedState::Stopped,
            TaskKind::Reset | TaskKind::Delete | TaskKind::Observe => ObservedState::Absent,
        };
        let observed = Observed {
            gitspace: task.gitspace,
            state,
            generation: task.generation,
            revision: revision.fetch_add(1, Ordering::Relaxed) + 1,
            at: Timestamp::now(),
            failure: None,
            task: None,
            dev_container: (state == ObservedState::Running).then(|| DevContainer {
                image: "debian".to_owned(),
                remote_user: "dev".to_owned(),
                workspace_folder: "/workspaces/app".to_owned(),
                forward_ports: Vec::new(),
                initialized: true,
                ssh_host_key: None,
            }),
        };
        self.gitspaces.insert(task.gitspace, observed.clone());
        let mut kinds = Vec::new();
        if let Some(lines) = play.log_lines {
            kinds.push(TaskEventKind::PhaseStarted { phase });
            kinds.extend((0..lines).map(|line| TaskEventKind::Log {
                phase,
                stream: LogStream::Stdout,
                text: format!("line {line} of what a build says while it goes on\n"),
            }));
            kinds.push(TaskEventKind::PhaseCompleted {
                phase,
                duration_ms: 1,
                detail: None,
            });
        }
        kinds.push(TaskEventKind::Finished {
            outcome: TaskOutcome::Done {},
            observed: Box::new(observed),
        });
        self.ended.insert(task.id, task.gitspace);
        self.said
            .extend((1..).zip(kinds).map(|(seq, event)| Up::TaskEvent {
                task: task.id,
                gitspace: task.gitspace,
                event: TaskEvent {
                    seq,
                    at: Timestamp::now(),
                    event,
                },
            }));
    }
}
