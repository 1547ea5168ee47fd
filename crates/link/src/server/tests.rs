use super::*;
use newtype_uuid::GenericUuid as _;
use wire::ids::TaskUuid;

fn hello() -> Frame<Up> {
    Frame::Hello {
        proof: "p".to_owned(),
        stream: stream(1),
        acked: Some(0),
        hello: Box::new(
            serde_json::from_value(serde_json::json!({
                "version": "0", "tags": [], "draining": false, "runner_ready": false, "tasks": [], "gitspaces": [],
                "inventory": {"hostname": "h", "os": "o", "kernel": "k", "arch": "a", "cpus": 1, "memory_bytes": 1,
                    "memory_available_bytes": 1, "disk_bytes": 1, "disk_available_bytes": 1,
                    "capacity": {"gitspaces": 1, "cpu_millis": 1, "memory_bytes": 1}}
            }))
            .expect("reads"),
        ),
        more: false,
    }
}

fn stream(n: u128) -> StreamUuid {
    StreamUuid::from_untyped_uuid(uuid::Uuid::from_u128(n))
}

fn send(server: &mut Server, now: Instant, frame: &Frame<Up>) {
    let text = codec::encode(frame).expect("writes");
    server.handle(now, Input::Text(&text));
}

fn transmit(server: &mut Server, now: Instant) -> Vec<Frame<Down>> {
    std::iter::from_fn(|| server.poll_transmit(now))
        .map(|text| codec::decode(&text, MAX_FRAME).expect("reads"))
        .collect()
}

fn fresh(now: Instant) -> Server {
    let mut server = Server::new(
        now,
        Timing::default(),
        "nonce".to_owned(),
        Timestamp::UNIX_EPOCH,
    );
    assert!(matches!(
        transmit(&mut server, now).as_slice(),
        [Frame::Challenge { .. }]
    ));
    server
}

fn live(now: Instant, inbox: Inbox) -> (Server, u64) {
    live_after(now, inbox, &hello())
}

fn live_after(now: Instant, inbox: Inbox, hello: &Frame<Up>) -> (Server, u64) {
    let mut server = fresh(now);
    send(&mut server, now, hello);
    assert!(matches!(server.poll_output(), Some(Output::Proof { .. })));
    assert!(!server.is_reading());
    server.handle(now, Input::Proved);
    assert!(server.is_reading());
    assert!(matches!(server.poll_output(), Some(Output::Hello { .. })));
    server.handle(
        now,
        Input::Accept(Acceptance {
            epoch: Epoch(4),
            stream: stream(9),
            inbox,
            welcome: Box::new(Welcome {
                version: "0".to_owned(),
                heartbeat_ms: 0,
                silence_limit_ms: 0,
                tasks: Vec::new(),
            }),
        }),
    );
    let sent = transmit(&mut server, now);
    let [Frame::Welcome { received, .. }] = sent.as_slice() else {
        panic!("{sent:?}");
    };
    (server, *received)
}

fn data(epoch: u64, seq: u64) -> Frame<Up> {
    Frame::Data {
        epoch: Epoch(epoch),
        seq,
        ack: 0,
        body: Up::RunnerReady { ready: true },
    }
}

fn ended(server: &mut Server) -> Cause {
    std::iter::from_fn(|| server.poll_output())
        .find_map(|output| match output {
            Output::Ended { cause } => Some(cause),
            Output::Proof { .. }
            | Output::Hello { .. }
            | Output::Deliver { .. }
            | Output::Probed { .. } => None,
        })
        .expect("ended")
}

#[test]
fn a_peer_without_a_hello_is_hung_up_after_ten_seconds() {
    let now = Instant::now();
    let mut server = fresh(now);
    assert_eq!(server.deadline(), Some(now + HELLO_LIMIT));
    server.handle(now + HELLO_LIMIT, Input::Tick);
    assert_eq!(ended(&mut server), Cause::NoHello);
}

#[test]
fn a_large_frame_is_refused_before_the_peer_has_proved_who_it_is() {
    let now = Instant::now();
    let mut server = fresh(now);
    server.handle(now, Input::Text(&" ".repeat(MAX_GREETING_FRAME + 1)));
    assert!(matches!(ended(&mut server), Cause::Violation { .. }));
    assert!(matches!(
        transmit(&mut server, now).as_slice(),
        [Frame::Bye {
            code: DisconnectCode::TooLarge,
            ..
        }]
    ));
}

#[test]
fn data_before_the_hello_is_refused() {
    let now = Instant::now();
    let mut server = fresh(now);
    send(&mut server, now, &data(0, 1));
    assert!(matches!(ended(&mut server), Cause::Violation { .. }));
}

#[test]
fn a_refused_delegate_is_told_why() {
    let now = Instant::now();
    let mut server = fresh(now);
    send(&mut server, now, &hello());
    server.handle(
        now,
        Input::Refuse {
            code: DisconnectCode::Revoked,
            reason: "the delegate was revoked".to_owned(),
            hint: Some("enrol it again".to_owned()),
        },
    );
    let sent = transmit(&mut server, now);
    let [Frame::Bye { code, hint, .. }] = sent.as_slice() else {
        panic!("{sent:?}");
    };
    assert_eq!(
        (*code, hint.as_deref()),
        (DisconnectCode::Revoked, Some("enrol it again"))
    );
}

#[test]
fn a_frame_of_another_epoch_ends_the_connection() {
    let now = Instant::now();
    let (mut server, _) = live(now, Inbox::default());
    send(&mut server, now, &data(3, 1));
    assert!(matches!(ended(&mut server), Cause::Violation { .. }));
}

#[test]
fn what_an_earlier_connection_took_is_not_delivered_again() {
    let now = Instant::now();
    let (mut server, received) = live(now, Inbox::resumed(stream(1), 7));
    assert_eq!(received, 7);
    send(&mut server, now, &data(4, 7));
    assert!(server.poll_output().is_none());
    send(&mut server, now, &data(4, 8));
    assert!(matches!(
        server.poll_output(),
        Some(Output::Deliver { seq: 8, .. })
    ));
}

#[test]
fn a_delegate_that_does_not_say_what_was_acknowledged_goes_on_where_it_is() {
    let now = Instant::now();
    let mut older = hello();
    if let Frame::Hello { acked, .. } = &mut older {
        *acked = None;
    }
    let (mut server, received) = live_after(now, Inbox::default(), &older);
    assert_eq!(received, 0, "it sends again what nobody acknowledged");
    send(&mut server, now, &data(4, 57));
    assert!(matches!(
        server.poll_output(),
        Some(Output::Deliver { seq: 57, .. })
    ));
    let (mut server, received) = live_after(now, Inbox::resumed(stream(1), 9), &older);
    assert_eq!(received, 9);
    send(&mut server, now, &data(4, 57));
    assert_eq!(ended(&mut server).code(), DisconnectCode::Protocol);
}

#[test]
fn only_what_the_application_stored_is_acknowledged() {
    let now = Instant::now();
    let (mut server, _) = live(now, Inbox::default());
    send(&mut server, now, &data(4, 1));
    send(&mut server, now, &data(4, 2));
    let later = now + Duration::from_secs(1);
    assert!(transmit(&mut server, later).is_empty());
    server.consumed(later, 1);
    let later = later + Duration::from_secs(1);
    assert!(matches!(
        transmit(&mut server, later).as_slice(),
        [Frame::Ack { ack: 1, .. }]
    ));
}

#[test]
fn an_acknowledgement_rides_on_data() {
    let now = Instant::now();
    let (mut server, _) = live(now, Inbox::default());
    send(&mut server, now, &data(4, 1));
    server.consumed(now, 1);
    server
        .send(
            &Down::Cancel {
                task: TaskUuid::nil(),
            },
            Class::Control,
        )
        .expect("room");
    let later = now + Duration::from_secs(1);
    assert!(matches!(
        transmit(&mut server, later).as_slice(),
        [Frame::Data { ack: 1, seq: 1, .. }]
    ));
}

#[test]
fn nothing_is_taken_for_a_delegate_that_is_not_in() {
    let now = Instant::now();
    let mut server = fresh(now);
    assert_eq!(
        server.send(
            &Down::Cancel {
                task: TaskUuid::nil()
            },
            Class::Control
        ),
        Err(SendRefused::Closed)
    );
}

#[test]
fn a_closed_connection_ignores_everything() {
    let now = Instant::now();
    let (mut server, _) = live(now, Inbox::default());
    server.handle(
        now,
        Input::Close {
            code: DisconnectCode::Superseded,
            reason: "twin".to_owned(),
            hint: None,
        },
    );
    assert!(matches!(ended(&mut server), Cause::Told { .. }));
    send(&mut server, now, &data(4, 1));
    server.handle(now, Input::Binary);
    server.handle(now, Input::Tick);
    assert!(server.poll_output().is_none());
    assert_eq!(server.deadline(), None);
}

fn rest(more: bool) -> Frame<Up> {
    Frame::HelloRest {
        tasks: Vec::new(),
        gitspaces: Vec::new(),
        more,
    }
}

fn long_hello() -> Frame<Up> {
    let mut hello = hello();
    if let Frame::Hello { more, .. } = &mut hello {
        *more = true;
    }
    hello
}

#[test]
fn the_rest_of_a_hello_is_taken_only_after_the_proof() {
    let now = Instant::now();
    let mut server = fresh(now);
    send(&mut server, now, &long_hello());
    assert!(matches!(server.poll_output(), Some(Output::Proof { .. })));
    server.handle(now, Input::Proved);
    assert!(server.poll_output().is_none());
    send(&mut server, now, &rest(true));
    assert!(server.poll_output().is_none());
    send(&mut server, now, &rest(false));
    assert!(matches!(server.poll_output(), Some(Output::Hello { .. })));

    let mut server = fresh(now);
    send(&mut server, now, &long_hello());
    send(&mut server, now, &rest(false));
    assert!(matches!(ended(&mut server), Cause::Violation { .. }));
}

#[test]
fn a_hello_without_an_end_is_refused_by_its_size() {
    let now = Instant::now();
    let mut server = fresh(now);
    send(&mut server, now, &long_hello());
    server.handle(now, Input::Proved);
    let filler = " ".repeat(MAX_FRAME - 1024);
    let text = format!("{filler}{}", codec::encode(&rest(true)).expect("writes"));
    let mut frames = 0;
    while server.is_reading() && server.deadline().is_some() {
        server.handle(now, Input::Text(&text));
        frames += 1;
        assert!(frames < 32, "it is read for ever");
    }
    assert_eq!(ended(&mut server).code(), DisconnectCode::TooLarge);
}

#[test]
fn a_hello_that_never_goes_on_is_hung_up() {
    let now = Instant::now();
    let mut server = fresh(now);
    send(&mut server, now, &long_hello());
    server.handle(now, Input::Proved);
    server.handle(now + GREETING_LIMIT, Input::Tick);
    assert_eq!(ended(&mut server), Cause::GreetingTooLong);
}

#[test]
fn the_server_asks_only_a_delegate_that_is_late_with_its_heartbeat() {
    let mut now = Instant::now();
    let (mut server, _) = live(now, Inbox::resumed(stream(1), 0));
    transmit(&mut server, now);
    let timing = Timing::default();
    for id in 1..20 {
        now += timing.heartbeat;
        server.handle(now, Input::Tick);
        assert!(transmit(&mut server, now).is_empty(), "it asks by itself");
        let epoch = server.epoch().expect("live");
        send(&mut server, now, &Frame::Ping { epoch, id });
        let frames = transmit(&mut server, now);
        assert!(
            matches!(frames.as_slice(), [Frame::Pong { .. }]),
            "{frames:?}"
        );
    }
    let late = server.deadline().expect("live");
    assert!(late > now + timing.heartbeat && late < now + timing.silence_limit);
    server.handle(late, Input::Tick);
    let frames = transmit(&mut server, late);
    assert!(
        matches!(frames.as_slice(), [Frame::Ping { .. }]),
        "{frames:?}"
    );
    assert!(server.deadline().expect("live") <= now + timing.heartbeat * 5 / 2);
}

#[test]
fn a_probe_overtakes_what_waits_and_its_answer_is_told_and_numbers_nothing() {
    let now = Instant::now();
    let (mut server, _) = live(now, Inbox::resumed(stream(1), 0));
    for _ in 0..3 {
        let task = TaskUuid::from_untyped_uuid(uuid::Uuid::from_u128(1));
        server
            .send(&Down::Cancel { task }, Class::Control)
            .expect("room");
    }
    server.probe(7, true);
    let sent = transmit(&mut server, now);
    assert!(
        matches!(
            sent.first(),
            Some(Frame::Probe {
                id: 7,
                all: true,
                ..
            })
        ),
        "{sent:?}"
    );
    assert_eq!(sent.len(), 4, "the bodies follow: {sent:?}");
    let answer = Frame::Probed {
        epoch: Epoch(4),
        id: 7,
        report: Box::default(),
    };
    send(&mut server, now, &answer);
    assert!(matches!(
        server.poll_output(),
        Some(Output::Probed { id: 7, .. })
    ));
    assert_eq!(server.session().inbox().consumed(), 0);
}

#[test]
fn a_delegate_that_probes_its_control_plane_breaks_the_protocol() {
    let now = Instant::now();
    let (mut server, _) = live(now, Inbox::resumed(stream(1), 0));
    let probe = Frame::Probe {
        epoch: Epoch(4),
        id: 1,
        all: false,
    };
    send(&mut server, now, &probe);
    assert!(matches!(
        ended(&mut server),
        Cause::Violation {
            code: DisconnectCode::Protocol,
            ..
        }
    ));
}
