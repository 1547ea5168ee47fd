use super::*;
use newtype_uuid::GenericUuid as _;
use wire::{control::Frame, ids::TaskUuid};

const SECOND: Duration = Duration::from_secs(1);

fn hello() -> Box<Hello> {
    Box::new(
        serde_json::from_value(serde_json::json!({
            "version": "0", "tags": [], "draining": false, "runner_ready": false, "tasks": [], "gitspaces": [],
            "inventory": {"hostname": "h", "os": "o", "kernel": "k", "arch": "a", "cpus": 1, "memory_bytes": 1,
                "memory_available_bytes": 1, "disk_bytes": 1, "disk_available_bytes": 1,
                "capacity": {"gitspaces": 1, "cpu_millis": 1, "memory_bytes": 1}}
        }))
        .expect("reads"),
    )
}

fn stream(n: u128) -> StreamUuid {
    StreamUuid::from_untyped_uuid(uuid::Uuid::from_u128(n))
}

fn send(client: &mut Client, now: Instant, frame: &Frame<Down>) {
    let text = codec::encode(frame).expect("writes");
    client.handle(now, Input::Text(&text));
}

fn welcome(epoch: u64, received: u64) -> Frame<Down> {
    Frame::Welcome {
        epoch: Epoch(epoch),
        stream: stream(9),
        received,
        welcome: Box::new(Welcome {
            version: "0".to_owned(),
            heartbeat_ms: 10_000,
            silence_limit_ms: 30_000,
            tasks: Vec::new(),
        }),
    }
}

fn challenge() -> Frame<Down> {
    Frame::Challenge {
        nonce: "n".to_owned(),
        now: Timestamp::UNIX_EPOCH,
    }
}

/// Everything the machine wants, as words.
fn outputs(client: &mut Client) -> Vec<String> {
    std::iter::from_fn(|| client.poll_output())
        .map(|output| match output {
            Output::Dial => "dial".to_owned(),
            Output::Challenged { .. } => "challenged".to_owned(),
            Output::Live { epoch, .. } => format!("live {}", epoch.0),
            Output::Deliver { seq, .. } => format!("deliver {seq}"),
            Output::Probe { id, .. } => format!("probe {id}"),
            Output::HangUp { cause, .. } => format!("hang up: {cause}"),
        })
        .collect()
}

fn transmit(client: &mut Client, now: Instant) -> Vec<Frame<Up>> {
    std::iter::from_fn(|| client.poll_transmit(now))
        .map(|text| codec::decode(&text, MAX_FRAME).expect("reads"))
        .collect()
}

fn go_live(client: &mut Client, now: Instant, epoch: u64, received: u64) {
    client.handle(now, Input::Connected);
    send(client, now, &challenge());
    client.handle(
        now,
        Input::Greet {
            proof: "p".to_owned(),
            hello: hello(),
        },
    );
    assert!(matches!(
        transmit(client, now).as_slice(),
        [Frame::Hello { .. }]
    ));
    send(client, now, &welcome(epoch, received));
    assert_eq!(client.state().stage(), Stage::Live, "{:?}", client.state());
    outputs(client);
}

fn live(now: Instant) -> Client {
    let mut client = Client::new(stream(1), 1);
    client.handle(now, Input::Start);
    go_live(&mut client, now, 1, 0);
    client
}

fn backoff_of(client: &Client, now: Instant) -> (Duration, u32) {
    match client.state() {
        State::Backoff { until, attempt, .. } => (until.saturating_duration_since(now), *attempt),
        other => panic!("{other:?}"),
    }
}

/// Lets the back-off pass, and goes live at once.
fn redial(client: &mut Client, now: Instant) -> Instant {
    let (delay, _) = backoff_of(client, now);
    let now = now + delay;
    client.handle(now, Input::Tick);
    assert_eq!(client.state().stage(), Stage::Connecting);
    now
}

#[test]
fn nothing_but_the_hello_is_sent_before_the_welcome() {
    let now = Instant::now();
    let mut client = Client::new(stream(1), 1);
    client
        .send(&Up::RunnerReady { ready: true }, Class::Control)
        .expect("room");
    client.handle(now, Input::Start);
    client.handle(now, Input::Connected);
    assert!(transmit(&mut client, now).is_empty());
    send(&mut client, now, &challenge());
    assert!(transmit(&mut client, now).is_empty());
    client.handle(
        now,
        Input::Greet {
            proof: String::new(),
            hello: hello(),
        },
    );
    assert!(matches!(
        transmit(&mut client, now).as_slice(),
        [Frame::Hello { .. }]
    ));
    send(&mut client, now, &welcome(1, 0));
    assert!(matches!(
        transmit(&mut client, now).as_slice(),
        [Frame::Data { seq: 1, .. }]
    ));
}

#[test]
fn a_welcome_without_a_challenge_is_refused() {
    let now = Instant::now();
    let mut client = Client::new(stream(1), 1);
    client.handle(now, Input::Start);
    client.handle(now, Input::Connected);
    send(&mut client, now, &welcome(1, 0));
    let said = outputs(&mut client).join("; ");
    assert!(
        said.contains("a `welcome` frame came while the link is greeting"),
        "{said}"
    );
}

#[test]
fn a_silent_link_is_hung_up_and_dialled_again() {
    let mut now = Instant::now();
    let mut client = live(now);
    now += 10 * SECOND;
    client.handle(now, Input::Tick);
    assert!(matches!(
        transmit(&mut client, now).as_slice(),
        [Frame::Ping { .. }]
    ));
    now += 20 * SECOND;
    client.handle(now, Input::Tick);
    assert_eq!(
        outputs(&mut client),
        ["hang up: nothing was heard for 30000 ms"]
    );
    now = redial(&mut client, now);
    assert_eq!(outputs(&mut client), ["dial"]);
    go_live(&mut client, now, 2, 0);
}

#[test]
fn a_pong_keeps_the_link_alive() {
    let start = Instant::now();
    let mut client = live(start);
    for n in 1..20 {
        let now = start + n * 10 * SECOND;
        client.handle(now, Input::Tick);
        let sent = transmit(&mut client, now);
        let [Frame::Ping { epoch, id }] = sent.as_slice() else {
            panic!("{sent:?}");
        };
        send(
            &mut client,
            now,
            &Frame::Pong {
                epoch: *epoch,
                id: *id,
            },
        );
    }
    assert_eq!(client.state().stage(), Stage::Live);
}

#[test]
fn a_frame_of_another_epoch_is_refused() {
    let now = Instant::now();
    for frame in [
        Frame::Ack {
            epoch: Epoch(2),
            ack: 0,
        },
        Frame::Ping {
            epoch: Epoch(0),
            id: 1,
        },
        Frame::Data {
            epoch: Epoch(2),
            seq: 1,
            ack: 0,
            body: Down::Cancel {
                task: TaskUuid::nil(),
            },
        },
    ] {
        let mut client = live(now);
        send(&mut client, now, &frame);
        let said = outputs(&mut client).join("; ");
        assert!(said.contains("epoch"), "{frame:?}: {said}");
        assert!(matches!(
            transmit(&mut client, now).as_slice(),
            [Frame::Bye {
                code: DisconnectCode::Protocol,
                ..
            }]
        ));
    }
}

#[test]
fn what_was_not_acknowledged_is_sent_again_after_a_cut() {
    let now = Instant::now();
    let mut client = live(now);
    for _ in 0..3 {
        client
            .send(&Up::RunnerReady { ready: true }, Class::Control)
            .expect("room");
    }
    assert_eq!(transmit(&mut client, now).len(), 3);
    client.handle(
        now,
        Input::Closed {
            code: None,
            reason: "reset".to_owned(),
        },
    );
    let now = redial(&mut client, now);
    go_live(&mut client, now, 2, 1);
    let again: Vec<_> = transmit(&mut client, now)
        .into_iter()
        .map(|frame| match frame {
            Frame::Data { epoch, seq, .. } => (epoch.0, seq),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(again, [(2, 2), (2, 3)]);
}

#[test]
fn a_server_that_received_what_was_never_sent_is_refused() {
    let now = Instant::now();
    let mut client = Client::new(stream(1), 1);
    client.handle(now, Input::Start);
    client.handle(now, Input::Connected);
    send(&mut client, now, &challenge());
    send(&mut client, now, &welcome(1, 5));
    assert!(
        outputs(&mut client)
            .join("; ")
            .contains("5 is acknowledged")
    );
}

#[test]
fn a_revoked_delegate_asks_about_once_a_minute_for_ever() {
    let mut now = Instant::now();
    let mut client = Client::new(stream(1), 1);
    client.handle(now, Input::Start);
    for _ in 0..10 {
        client.handle(now, Input::Connected);
        send(
            &mut client,
            now,
            &Frame::Bye {
                code: DisconnectCode::Revoked,
                reason: "revoked".to_owned(),
                hint: Some("enrol again".to_owned()),
            },
        );
        let (delay, _) = backoff_of(&client, now);
        assert!((45..=75).contains(&delay.as_secs()), "{delay:?}");
        let State::Backoff { cause, .. } = client.state() else {
            panic!("{:?}", client.state());
        };
        assert_eq!(cause.hint(), Some("enrol again"));
        now = redial(&mut client, now);
    }
}

#[test]
fn a_quiet_minute_resets_the_backoff_and_less_does_not() {
    let mut now = Instant::now();
    let mut client = Client::new(stream(1), 5);
    client.handle(now, Input::Start);
    for _ in 0..4 {
        client.handle(
            now,
            Input::DialFailed {
                code: DisconnectCode::CannotConnect,
                reason: "refused".to_owned(),
            },
        );
        now = redial(&mut client, now);
    }
    go_live(&mut client, now, 1, 0);
    let soon = now + 5 * SECOND;
    client.handle(
        soon,
        Input::Closed {
            code: None,
            reason: "cut".to_owned(),
        },
    );
    assert_eq!(backoff_of(&client, soon).1, 5);
    now = redial(&mut client, soon);
    go_live(&mut client, now, 2, 0);
    let late = now + 60 * SECOND;
    client.handle(
        late,
        Input::Closed {
            code: None,
            reason: "cut".to_owned(),
        },
    );
    assert_eq!(backoff_of(&client, late).1, 1);
}

#[test]
fn a_stuck_dial_and_a_stuck_greeting_are_given_up() {
    let now = Instant::now();
    let mut client = Client::new(stream(1), 1);
    client.handle(now, Input::Start);
    let late = now + Timing::default().dial_limit();
    client.handle(late, Input::Tick);
    assert_eq!(client.state().stage(), Stage::Backoff);
    let now = redial(&mut client, late);
    client.handle(now, Input::Connected);
    client.handle(now + GREETING_LIMIT, Input::Tick);
    assert_eq!(client.state().stage(), Stage::Backoff);
}

#[test]
fn a_reconnect_hangs_up_and_dials_at_once() {
    let now = Instant::now();
    let mut client = live(now);
    client.handle(now, Input::Reconnect);
    assert!(matches!(
        transmit(&mut client, now).as_slice(),
        [Frame::Bye {
            code: DisconnectCode::GoingAway,
            ..
        }]
    ));
    client.handle(now, Input::Tick);
    assert_eq!(
        outputs(&mut client),
        ["hang up: a reconnect was asked for", "dial"]
    );
}

#[test]
fn a_stopped_client_says_goodbye_and_dials_no_more() {
    let now = Instant::now();
    let mut client = live(now);
    client.handle(now, Input::Stop);
    assert!(matches!(
        transmit(&mut client, now).as_slice(),
        [Frame::Bye { .. }]
    ));
    assert_eq!(client.deadline(), None);
    client.handle(now + 3_600 * SECOND, Input::Tick);
    client.handle(now, Input::Reconnect);
    assert_eq!(outputs(&mut client), ["hang up: the delegate stops"]);
}

#[test]
fn a_cloned_delegate_leaves_its_twin_in_peace() {
    let now = Instant::now();
    let mut client = live(now);
    send(
        &mut client,
        now,
        &Frame::Bye {
            code: DisconnectCode::Cloned,
            reason: "another host".to_owned(),
            hint: Some("enrol it".to_owned()),
        },
    );
    let (delay, _) = backoff_of(&client, now);
    assert!((450..=750).contains(&delay.as_secs()), "{delay:?}");
}

#[test]
fn the_code_of_a_close_frame_counts_where_no_bye_came() {
    let now = Instant::now();
    let mut client = live(now);
    client.handle(
        now,
        Input::Closed {
            code: Some(DisconnectCode::Revoked),
            reason: "revoked".to_owned(),
        },
    );
    let State::Backoff { cause, .. } = client.state() else {
        panic!("{:?}", client.state());
    };
    assert_eq!(cause.code(), DisconnectCode::Revoked);
    let (delay, _) = backoff_of(&client, now);
    assert!((45..=75).contains(&delay.as_secs()), "{delay:?}");
}

#[test]
fn a_hello_that_no_server_takes_is_named_at_both_ends() {
    let now = Instant::now();
    let mut client = Client::new(stream(1), 1);
    client.handle(now, Input::Start);
    client.handle(now, Input::Connected);
    send(&mut client, now, &challenge());
    let mut hello = hello();
    hello.tags = vec!["x".repeat(MAX_FRAME)];
    client.handle(
        now,
        Input::Greet {
            proof: "p".to_owned(),
            hello,
        },
    );
    let State::Backoff { cause, .. } = client.state() else {
        panic!("{:?}", client.state());
    };
    assert_eq!(cause.code(), DisconnectCode::TooLarge);
    assert!(matches!(
        transmit(&mut client, now).as_slice(),
        [Frame::Bye {
            code: DisconnectCode::TooLarge,
            ..
        }]
    ));
}
