//! One of each. The matches name every variant: a new one does not compile before it has a name here, and its sample a file.

use jiff::Timestamp;
use newtype_uuid::{GenericUuid as _, TypedUuid, TypedUuidKind};
use serde_json::{Value, json};
use wire::{
    agent::ListeningPort,
    control::{
        Capacity, DisconnectCode, Down, EnrolClaims, EnrolRequest, EnrolResponse, Epoch, Frame,
        Hello, Hop, HopProblem, HopReport, Inventory, KeyChallenge, KeyClaims, KeyProof,
        KeyProposal, KeyState, ProbeReport, ProofClaims, TaskStatus, TaskVerdict, Up, Welcome,
    },
    failure::{Failure, FailureCode},
    gateway::{GrantClaims, PortSet, Route, ToGateway},
    gitspace::{
        DevContainer, Generation, GitCredential, GitIdentity, GitScheme, GitspaceSpec,
        GitspaceState, Observed, ObservedState, PortVisibility, RepoSpec, Resources, SharedPort,
    },
    runner::DialTarget,
    secret::Secret,
    task::{LogStream, Phase, Task, TaskEvent, TaskEventKind, TaskKind, TaskOutcome, TaskVerb},
    tunnel::{
        StreamRefusal, StreamRequest, TunnelClaims, TunnelHello, TunnelOffer, TunnelOffers,
        TunnelWelcome,
    },
};

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 123_456_000);

fn id<K: TypedUuidKind>(number: u128) -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(uuid::Uuid::from_u128(
        0x0198_c0de_0000_7000_8000_0000_0000_0000 + number,
    ))
}

fn frame_name<B>(frame: &Frame<B>) -> &'static str {
    match frame {
        Frame::Challenge { .. } => "challenge",
        Frame::Hello { hello, .. } if hello.tunnels => "hello-tunnels",
        Frame::Hello { .. } => "hello",
        Frame::HelloRest { .. } => "hello-rest",
        Frame::Welcome { .. } => "welcome",
        Frame::Data { .. } => "data",
        Frame::Ack { .. } => "ack",
        Frame::Ping { .. } => "ping",
        Frame::Pong { .. } => "pong",
        Frame::Bye { .. } => "bye",
        Frame::Probe { .. } => "probe",
        Frame::Probed { .. } => "probed",
    }
}

fn up_name(body: &Up) -> String {
    match body {
        Up::TaskEvent { event, .. } => {
            let event = match &event.event {
                TaskEventKind::PhaseStarted { .. } => "phase-started",
                TaskEventKind::PhaseCompleted { .. } => "phase-completed",
                TaskEventKind::PhaseFailed { .. } => "phase-failed",
                TaskEventKind::Log { .. } => "log",
                TaskEventKind::Finished { outcome, .. } => match outcome {
                    TaskOutcome::Done {} => "finished-done",
                    TaskOutcome::Failed { .. } => "finished-failed",
                    TaskOutcome::Cancelled {} => "finished-cancelled",
                },
            };
            format!("data-task-event-{event}")
        }
        Up::TaskRefused { .. } => "data-task-refused".to_owned(),
        Up::Observed { .. } => "data-observed".to_owned(),
        Up::Inventory { .. } => "data-inventory".to_owned(),
        Up::RunnerReady { .. } => "data-runner-ready".to_owned(),
        Up::Draining { .. } => "data-draining".to_owned(),
    }
}

fn down_name(body: &Down) -> String {
    match body {
        Down::Assign { task, limit_ms } => {
            let limited = if limit_ms.is_some() { "-limited" } else { "" };
            format!("data-assign-{}{limited}", task.verb.kind().as_str())
        }
        Down::Cancel { .. } => "data-cancel".to_owned(),
        Down::Stored { .. } => "data-stored".to_owned(),
        Down::Tunnels { .. } => "data-tunnels".to_owned(),
    }
}

fn failure() -> Failure {
    Failure::new(FailureCode::ImageMissing, "the image `x` is not there")
        .detail("no such image")
        .hint("pull it")
}

fn observed() -> Observed {
    Observed {
        gitspace: id(2),
        state: ObservedState::Running,
        generation: Generation(3),
        revision: 7,
        at: NOW,
        failure: Some(failure()),
        task: Some(id(1)),
        dev_container: Some(DevContainer {
            image: "gitspaces/default:latest".to_owned(),
            remote_user: "developer".to_owned(),
            workspace_folder: "/workspaces/app".to_owned(),
            forward_ports: vec![3000],
            initialized: true,
            ssh_host_key: None,
        }),
    }
}

fn inventory() -> Inventory {
    Inventory {
        hostname: "host".to_owned(),
        os: "Debian GNU/Linux 12".to_owned(),
        kernel: "6.1.0".to_owned(),
        arch: "x86_64".to_owned(),
        cpus: 2,
        memory_bytes: 1 << 34,
        memory_available_bytes: 1 << 33,
        disk_bytes: 1 << 40,
        disk_available_bytes: 1 << 39,
        docker_version: Some("20.10.24".to_owned()),
        capacity: Capacity {
            gitspaces: 8,
            cpu_millis: 2_000,
            memory_bytes: 1 << 33,
        },
    }
}

fn status() -> TaskStatus {
    TaskStatus {
        task: id(1),
        gitspace: id(2),
        generation: Generation(3),
        kind: TaskKind::Start,
        finished: false,
        last_seq: 4,
    }
}

fn task(verb: TaskVerb) -> Box<Task> {
    Box::new(Task {
        id: id(1),
        gitspace: id(2),
        generation: Generation(3),
        attempt: 1,
        deadline: NOW,
        trace: id(9),
        verb,
    })
}

fn spec() -> GitspaceSpec {
    let credential = |scheme, host: &str| GitCredential {
        scheme,
        host: host.to_owned(),
        username: "ann".to_owned(),
        secret: Secret::new("s3cret"),
    };
    GitspaceSpec {
        name: "app".parse().unwrap(),
        slug: "app-1a2b3c".parse().unwrap(),
        repo: RepoSpec {
            url: "https://git.example.com/app.git".parse().unwrap(),
            reference: Some("main".parse().unwrap()),
        },
        resources: Resources {
            cpu_millis: 1_000,
            memory_bytes: 1 << 31,
            pids: 512,
        },
        git_credentials: vec![
            credential(GitScheme::Https, "git.example.com"),
            credential(GitScheme::Http, "git.lan:3000"),
        ],
        git_identity: Some(GitIdentity {
            name: "Ann".to_owned(),
            email: "ann@example.com".to_owned(),
        }),
    }
}

fn data<B>(body: B) -> Frame<B> {
    Frame::Data {
        epoch: Epoch(5),
        seq: 6,
        ack: 4,
        body,
    }
}

/// What both sides send.
fn shared<B>() -> Vec<Frame<B>> {
    let epoch = Epoch(5);
    vec![
        Frame::Ack { epoch, ack: 4 },
        Frame::Ping { epoch, id: 1 },
        Frame::Pong { epoch, id: 1 },
        Frame::Bye {
            code: DisconnectCode::GoingAway,
            reason: "the control plane is stopping".to_owned(),
            hint: Some("dial again later".to_owned()),
        },
    ]
}

/// From a delegate.
pub(super) fn up() -> Vec<(String, Frame<Up>)> {
    let event = |event| Up::TaskEvent {
        task: id(1),
        gitspace: id(2),
        event: TaskEvent {
            seq: 4,
            at: NOW,
            event,
        },
    };
    let finished = |outcome| {
        event(TaskEventKind::Finished {
            outcome,
            observed: Box::new(observed()),
        })
    };
    let bodies = [
        event(TaskEventKind::PhaseStarted {
            phase: Phase::Clone,
        }),
        event(TaskEventKind::PhaseCompleted {
            phase: Phase::Clone,
            duration_ms: 12,
            detail: Some("cloned 1a2b3c4 of main".to_owned()),
        }),
        event(TaskEventKind::PhaseFailed {
            phase: Phase::Image,
            duration_ms: 12,
            failure: failure(),
        }),
        event(TaskEventKind::Log {
            phase: Phase::PostCreateCommand,
            stream: LogStream::Stderr,
            text: "warning: é\n".to_owned(),
        }),
        finished(TaskOutcome::Done {}),
        finished(TaskOutcome::Failed { failure: failure() }),
        finished(TaskOutcome::Cancelled {}),
        Up::TaskRefused {
            task: id(1),
            gitspace: id(2),
            failure: failure(),
        },
        Up::Observed {
            observed: observed(),
        },
        Up::Inventory {
            inventory: inventory(),
        },
        Up::RunnerReady { ready: true },
        Up::Draining { draining: true },
    ];
    let hello = |tunnels| Frame::Hello {
        proof: "v4.public.proof".to_owned(),
        stream: id(8),
        acked: Some(4),
        hello: Box::new(Hello {
            version: "0.1.0".to_owned(),
            inventory: inventory(),
            tags: vec!["gpu".to_owned()],
            draining: false,
            runner_ready: true,
            probes: true,
            tunnels,
            tasks: vec![status()],
            gitspaces: vec![observed()],
        }),
        more: true,
    };
    let rest = Frame::HelloRest {
        tasks: vec![status()],
        gitspaces: vec![observed()],
        more: false,
    };
    let mut frames: Vec<_> = bodies
        .into_iter()
        .map(|body| (up_name(&body), data(body)))
        .collect();
    let probed = Frame::Probed {
        epoch: Epoch(5),
        id: 1,
        report: Box::new(ProbeReport {
            hops: vec![
                HopReport {
                    hop: Hop::Runner,
                    gitspace: None,
                    took_us: 900,
                    problem: None,
                },
                HopReport {
                    hop: Hop::Agent,
                    gitspace: Some(id(2)),
                    took_us: 2_000_000,
                    problem: Some(HopProblem::Failed {
                        reason: "no answer within 2 s".to_owned(),
                        hint: Some("wait".to_owned()),
                    }),
                },
            ],
            ..ProbeReport::default()
        }),
    };
    let frames_of_its_own = [hello(false), hello(true), rest, probed];
    frames.extend(frames_of_its_own.map(|frame| (frame_name(&frame).to_owned(), frame)));
    frames.extend(
        shared()
            .into_iter()
            .map(|frame| (frame_name(&frame).to_owned(), frame)),
    );
    frames
}

/// From the control plane; what both send is among a delegate's.
pub(super) fn down() -> Vec<(String, Frame<Down>)> {
    let bodies = [
        Down::Assign {
            task: task(TaskVerb::Provision { spec: spec() }),
            limit_ms: None,
        },
        Down::Assign {
            task: task(TaskVerb::Start { spec: spec() }),
            limit_ms: None,
        },
        Down::Assign {
            task: task(TaskVerb::Stop {}),
            limit_ms: None,
        },
        Down::Assign {
            task: task(TaskVerb::Reset {}),
            limit_ms: None,
        },
        Down::Assign {
            task: task(TaskVerb::Delete {}),
            limit_ms: None,
        },
        Down::Assign {
            task: task(TaskVerb::Observe {}),
            limit_ms: None,
        },
        Down::Assign {
            task: task(TaskVerb::Stop {}),
            limit_ms: Some(60_000),
        },
        Down::Cancel { task: id(1) },
        Down::Stored {
            task: id(1),
            seq: 4,
        },
        Down::Tunnels {
            offers: TunnelOffers {
                gateways: vec![id(9), id(10)],
                open: vec![TunnelOffer {
                    gateway: id(9),
                    url: "https://dev.example.com".to_owned(),
                    ticket: Secret::new("v4.public.ticket"),
                }],
            },
        },
    ];
    let challenge = Frame::Challenge {
        nonce: "00112233".to_owned(),
        now: NOW,
    };
    let welcome = Frame::Welcome {
        epoch: Epoch(5),
        stream: id(8),
        received: 4,
        welcome: Box::new(Welcome {
            version: "0.1.0".to_owned(),
            heartbeat_ms: 30_000,
            silence_limit_ms: 67_500,
            tasks: vec![
                TaskVerdict::Continue {
                    task: id(1),
                    after: 4,
                },
                TaskVerdict::Cancel {
                    task: id(1),
                    after: 4,
                },
                TaskVerdict::Forget { task: id(1) },
            ],
        }),
    };
    let mut frames: Vec<_> = bodies
        .into_iter()
        .map(|body| (down_name(&body), data(body)))
        .collect();
    let probe = Frame::Probe {
        epoch: Epoch(5),
        id: 1,
        all: true,
    };
    frames.extend([challenge, welcome, probe].map(|frame| (frame_name(&frame).to_owned(), frame)));
    frames
}

/// Bodies and signed claims of what a delegate says over HTTP.
pub(super) fn http(mut each: impl FnMut(&str, Value)) {
    let key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE".to_owned();
    let audience = "https://gitspaces.example.com".to_owned();
    let (iat, exp) = (NOW, NOW);
    let proof = || "v4.public.proof".to_owned();
    let nonce = || "00112233".to_owned();
    each(
        "claims-proof",
        json!(ProofClaims {
            delegate: id(7),
            audience: audience.clone(),
            nonce: nonce(),
            iat,
            exp
        }),
    );
    each(
        "claims-enrol",
        json!(EnrolClaims {
            audience: audience.clone(),
            name: "host".to_owned(),
            iat,
            exp
        }),
    );
    each(
        "claims-key",
        json!(KeyClaims {
            delegate: id(7),
            audience,
            nonce: nonce(),
            public_key: key.clone(),
            link: Some(Epoch(5)),
            iat,
            exp
        }),
    );
    each(
        "http-enrol-request",
        json!(EnrolRequest {
            join_token: Secret::new("gsj_x"),
            name: "host".to_owned(),
            tags: vec!["gpu".to_owned()],
            public_key: key,
            proof: proof()
        }),
    );
    each(
        "http-enrol-response",
        json!(EnrolResponse {
            delegate: id(7),
            name: "host".to_owned()
        }),
    );
    each(
        "http-key-challenge",
        json!(KeyChallenge {
            nonce: nonce(),
            now: NOW
        }),
    );
    each(
        "http-key-proposal",
        json!(KeyProposal {
            by_current: proof(),
            by_next: proof()
        }),
    );
    each("http-key-proof", json!(KeyProof { proof: proof() }));
    each(
        "http-key-state",
        json!(KeyState {
            fingerprint: "72cd6e8422c407fb".to_owned(),
            since: NOW,
            next: Some("0011223344556677".to_owned())
        }),
    );
}

/// The first words of a tunnel's line and of its streams.
pub(super) fn tunnel(mut each: impl FnMut(&str, Value)) {
    let listening = ListeningPort {
        port: 3000,
        address: "127.0.0.1".to_owned(),
        process: Some("node".to_owned()),
        pid: Some(42),
        forwarded: true,
    };
    each(
        "claims-tunnel",
        json!(TunnelClaims {
            delegate: id(7),
            gateway: id(9),
            iat: NOW,
            exp: NOW
        }),
    );
    each(
        "tunnel-hello",
        json!(TunnelHello {
            process: id(8),
            lane: 1,
            line: 3,
            tunnel: Some(id(11)),
            received: 4
        }),
    );
    for (name, welcome) in [
        ("resumed", TunnelWelcome::Resumed { received: 4 }),
        ("begun", TunnelWelcome::Begun { tunnel: id(12) }),
    ] {
        each(&format!("tunnel-welcome-{name}"), json!(welcome));
    }
    for (name, request) in [
        ("dial", StreamRequest::dial(id(2), DialTarget::Port(3000))),
        ("probe", StreamRequest::Probe {}),
    ] {
        each(&format!("tunnel-request-{name}"), json!(request));
    }
    for (name, refusal) in [
        (
            "port-closed",
            StreamRefusal::PortClosed {
                listening: vec![listening],
            },
        ),
        ("not-running", StreamRefusal::NotRunning {}),
        (
            "unreachable",
            StreamRefusal::Unreachable {
                cause: "no stream within 8 s".to_owned(),
            },
        ),
    ] {
        each(&format!("tunnel-refusal-{name}"), json!(refusal));
    }
}

/// Control plane and gateways, and what gateways check.
pub(super) fn gateway(mut each: impl FnMut(&str, Value)) {
    let grant = GrantClaims {
        id: id(40),
        gateway: id(41),
        gitspace: id(1),
        slug: "demo-ab12cd".parse().unwrap(),
        user: id(42),
        ports: PortSet::All {},
        workspace: true,
        is_guest: false,
        iat: NOW,
        exp: NOW,
        until: Some(NOW),
    };
    let guest = GrantClaims {
        ports: PortSet::Only { ports: vec![3000] },
        workspace: false,
        is_guest: true,
        ..grant.clone()
    };
    let route = Route {
        slug: grant.slug.clone(),
        gitspace: grant.gitspace,
        name: "demo".to_owned(),
        state: GitspaceState::Running,
        reachable: true,
        delegate: Some(id(2)),
        error: None,
        phase: None,
        owner: "ada".to_owned(),
        shared: vec![SharedPort {
            port: 3000,
            visibility: PortVisibility::Project,
        }],
    };
    let snapshot = ToGateway::Snapshot {
        gateway: grant.gateway,
        keys: vec!["key".to_owned()],
        authorize_url: "https://gitspaces.example.com/authorize".to_owned(),
        routes: vec![route.clone()],
        revocations: Vec::new(),
        probes: true,
        wakes: true,
        starts: true,
    };
    each("claims-grant", json!(grant));
    each("claims-grant-guest", json!(guest));
    each("gateway-snapshot", json!(snapshot));
    each("gateway-route", json!(ToGateway::Route { route }));
}
