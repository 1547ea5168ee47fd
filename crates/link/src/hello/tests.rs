use super::*;
use crate::limits::MAX_SENT_BODY;
use jiff::Timestamp;
use newtype_uuid::GenericUuid as _;
use proptest::prelude::*;
use wire::{
    control::{Capacity, Epoch, Inventory, TaskVerdict, Welcome},
    failure::{Failure, FailureCode},
    gitspace::{DevContainer, Generation, ObservedState},
    ids::{GitspaceUuid, TaskUuid},
    task::TaskKind,
};

fn uuid(n: usize) -> uuid::Uuid {
    uuid::Uuid::from_u128(u128::MAX - n as u128)
}

fn task(n: usize) -> TaskStatus {
    TaskStatus {
        task: TaskUuid::from_untyped_uuid(uuid(n)),
        gitspace: GitspaceUuid::from_untyped_uuid(uuid(n)),
        generation: Generation(u64::MAX),
        kind: TaskKind::Provision,
        finished: false,
        last_seq: u64::MAX,
    }
}

fn observed(n: usize, detail: usize) -> Observed {
    Observed {
        gitspace: GitspaceUuid::from_untyped_uuid(uuid(n)),
        state: ObservedState::Provisioned,
        generation: Generation(7),
        revision: 12_345,
        at: Timestamp::UNIX_EPOCH,
        failure: (detail > 0)
            .then(|| Failure::new(FailureCode::Internal, "x").detail("\u{1}".repeat(detail))),
        task: Some(TaskUuid::from_untyped_uuid(uuid(n))),
        dev_container: Some(DevContainer {
            image: "registry.example/team/image:tag".to_owned(),
            remote_user: "vscode".to_owned(),
            workspace_folder: "/workspaces/project".to_owned(),
            forward_ports: vec![3000, 8080],
            initialized: true,
            ssh_host_key: None,
        }),
    }
}

fn hello(tasks: Vec<TaskStatus>, gitspaces: Vec<Observed>) -> Box<Hello> {
    Box::new(Hello {
        version: "0.1.0".to_owned(),
        inventory: Inventory {
            hostname: "h".to_owned(),
            os: "o".to_owned(),
            kernel: "k".to_owned(),
            arch: "a".to_owned(),
            cpus: 1,
            memory_bytes: 1,
            memory_available_bytes: 1,
            disk_bytes: 1,
            disk_available_bytes: 1,
            docker_version: None,
            capacity: Capacity {
                gitspaces: 1,
                cpu_millis: 1,
                memory_bytes: 1,
            },
        },
        tags: Vec::new(),
        draining: false,
        probes: false,
        tunnels: false,
        runner_ready: true,
        tasks,
        gitspaces,
    })
}

fn send(hello: Box<Hello>) -> Result<VecDeque<String>, HelloRefused> {
    frames("proof".to_owned(), (StreamUuid::nil(), u64::MAX), hello)
}

/// As a server puts it together; every frame is within its limit.
fn receive(frames: VecDeque<String>) -> Box<Hello> {
    let mut collected: Option<Collected> = None;
    let last = frames.len() - 1;
    for (index, text) in frames.into_iter().enumerate() {
        let limit = if index == 0 {
            MAX_GREETING_FRAME
        } else {
            MAX_FRAME
        };
        match codec::decode::<Up>(&text, limit).expect("within the limit") {
            Frame::Hello { hello, more, .. } => {
                assert_eq!(more, index < last);
                collected = Some(Collected::begin(hello, text.len()).expect("taken"));
            }
            Frame::HelloRest {
                tasks,
                gitspaces,
                more,
            } => {
                assert_eq!(more, index < last);
                let collected = collected.as_mut().expect("begun");
                collected.add(tasks, gitspaces, text.len()).expect("taken");
            }
            other => panic!("{other:?}"),
        }
    }
    collected.expect("begun").hello
}

fn json(hello: &Hello) -> String {
    serde_json::to_string(hello).expect("writes")
}

#[test]
fn a_small_hello_is_one_frame() {
    let frames = send(hello(vec![task(1)], vec![observed(1, 0)])).expect("fits");
    assert_eq!(frames.len(), 1);
}

#[test]
fn five_thousand_gitspaces_and_as_many_tasks_arrive_whole() {
    let whole = hello(
        (0..5_000).map(task).collect(),
        (0..5_000).map(|n| observed(n, 0)).collect(),
    );
    let frames = send(whole.clone()).expect("fits");
    assert!(frames.len() > 1 && frames.len() < 10, "{}", frames.len());
    assert_eq!(json(&receive(frames)), json(&whole));
}

#[test]
fn more_than_the_limits_is_refused_with_the_reason() {
    let tasks = send(hello((0..=MAX_HELLO_TASKS).map(task).collect(), Vec::new()));
    assert_eq!(
        tasks.expect_err("refused").to_string(),
        "the hello tells of 8001 tasks, more than 8000"
    );
    let gitspaces = (0..=MAX_HELLO_GITSPACES).map(|n| observed(n, 0)).collect();
    let gitspaces = send(hello(Vec::new(), gitspaces));
    assert_eq!(
        gitspaces.expect_err("refused").to_string(),
        "the hello tells of 10001 gitspaces, more than 10000"
    );
    let bytes = (0..1_000).map(|n| observed(n, 8_000)).collect();
    assert!(matches!(
        send(hello(Vec::new(), bytes)),
        Err(HelloRefused::TooLarge { limit: MAX_HELLO })
    ));
}

#[test]
fn the_verdicts_on_the_most_tasks_fit_into_a_welcome() {
    let frame = Frame::<Up>::Welcome {
        epoch: Epoch(u64::MAX),
        stream: StreamUuid::nil(),
        received: u64::MAX,
        welcome: Box::new(Welcome {
            version: "x".repeat(64),
            heartbeat_ms: u64::MAX,
            silence_limit_ms: u64::MAX,
            tasks: (0..MAX_HELLO_TASKS)
                .map(|n| TaskVerdict::Continue {
                    task: task(n).task,
                    after: u64::MAX,
                })
                .collect(),
        }),
    };
    let length = codec::encode(&frame).expect("writes").len();
    assert!(length <= MAX_FRAME, "{length}");
}

#[test]
fn the_frame_around_the_largest_body_is_within_the_limit() {
    let body = "x".repeat(MAX_SENT_BODY);
    let frame = codec::data(Epoch(u64::MAX), u64::MAX, u64::MAX, &body);
    assert!(frame.len() <= MAX_FRAME, "{}", frame.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_hello_arrives_whole_in_frames_within_their_limits_or_is_refused(
        tasks in prop_oneof![0..2_000_usize, MAX_HELLO_TASKS - 1..MAX_HELLO_TASKS + 2],
        details in proptest::collection::vec(prop_oneof![0..400_usize, Just(8_192)], 0..400),
        plain in 0..1_000_usize,
    ) {
        let mut gitspaces: Vec<_> = details
            .iter()
            .enumerate()
            .map(|(n, detail)| observed(n, *detail))
            .collect();
        gitspaces.extend((0..plain).map(|n| observed(1_000 + n, 0)));
        let whole = hello((0..tasks).map(task).collect(), gitspaces);
        match send(whole.clone()) {
            Ok(frames) => prop_assert_eq!(json(&receive(frames)), json(&whole)),
            Err(HelloRefused::TooMany { count, limit, .. }) => prop_assert!(count > limit),
            Err(HelloRefused::TooLarge { .. }) => {
                let length = json(&whole).len();
                prop_assert!(length > MAX_HELLO * 9 / 10, "{}", length);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
