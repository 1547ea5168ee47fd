//! A broken road is noticed within two and a half heartbeats, a mended one is used within two, and a bad one is borne.

use crate::{
    control_plane::TestControlPlane,
    delegate::TestDelegate,
    faulty_road::{Carried, Fault, FaultyRoad, Way},
    runner::TestRunner,
};
use link::client::Stage;
use std::time::{Duration, Instant};
use wire::control::DisconnectCode;

const HEARTBEAT: Duration = Duration::from_secs(3);
/// What a task says; a kilobyte a second has to carry it.
const LINES: u64 = 8;
/// Of a ping or a pong, at most.
const HEARTBEAT_BYTES: u64 = 60;

struct Host {
    road: FaultyRoad,
    control_plane: TestControlPlane,
    delegate: TestDelegate,
    _runner: TestRunner,
}

impl Host {
    async fn connected() -> Self {
        let road = FaultyRoad::open().await;
        let control_plane =
            TestControlPlane::start_behind_with_heartbeat(&road.url(), HEARTBEAT).await;
        road.lead_to(control_plane.address);
        let mut delegate = TestDelegate::new(&road.url());
        let runner = TestRunner::that_says(&delegate.runner_socket(), LINES);
        delegate.enrol(&control_plane).await.expect("enrols");
        delegate.start().await;
        delegate.until_state(Stage::Live).await;
        control_plane
            .until_delegate(|delegate| delegate["runner_ready"] == true)
            .await;
        Self {
            road,
            control_plane,
            delegate,
            _runner: runner,
        }
    }

    async fn takes_a_task(&self) {
        let gitspace = self.control_plane.create_gitspace().await;
        self.control_plane
            .until_gitspace(&gitspace, "running")
            .await;
    }

    async fn until_connected(&self, connected: bool) -> Duration {
        let since = Instant::now();
        self.control_plane
            .until_delegate(|delegate| delegate["connected"] == connected)
            .await;
        since.elapsed()
    }
}

/// Answers with what the control plane calls the end of the connection.
async fn away_and_back(fault: Fault) -> String {
    let host = Host::connected().await;
    host.road.set(fault);
    let took = host.until_connected(false).await;
    assert!(took <= HEARTBEAT * 5 / 2, "marked away after {took:?}");
    let seen = host.control_plane.delegate().await;
    host.road.set(Fault::None);
    let took = host.until_connected(true).await;
    assert!(took <= HEARTBEAT * 2, "back after {took:?}");
    host.takes_a_task().await;
    seen["last_disconnect"]["code"].as_str().unwrap().to_owned()
}

/// The link that is up stays up, carries tasks and heartbeats, and one can be made, too.
async fn is_borne(fault: Fault) {
    let host = Host::connected().await;
    let first = host.delegate.until_state(Stage::Live).await.epoch;
    host.road.set(fault);
    host.takes_a_task().await;
    let before = host.road.carried();
    let heartbeats = HEARTBEAT_BYTES;
    host.road
        .until_carried(
            HEARTBEAT * 7,
            Carried {
                up: before.up + heartbeats,
                down: before.down + heartbeats,
            },
        )
        .await;
    assert_eq!(host.delegate.until_state(Stage::Live).await.epoch, first);
    assert_eq!(host.control_plane.delegate().await["connected"], true);
    host.delegate.link().reconnect();
    let again = host
        .delegate
        .until(|status| status.state == Stage::Live && status.epoch > first)
        .await;
    assert!(again.epoch > first);
}

#[tokio::test]
async fn a_reset_link_is_marked_away_and_comes_back_when_the_road_is_mended() {
    let code = away_and_back(Fault::Reset).await;
    assert_eq!(code, DisconnectCode::ConnectionLost.as_str());
}

#[tokio::test]
async fn a_black_hole_is_marked_away_and_left_behind_when_the_road_is_mended() {
    let code = away_and_back(Fault::BlackHole).await;
    assert_eq!(code, DisconnectCode::Silence.as_str());
}

#[tokio::test]
async fn a_link_that_only_the_control_plane_can_speak_on_is_marked_away_and_comes_back() {
    let code = away_and_back(Fault::Blocked(Way::Up)).await;
    assert_eq!(code, DisconnectCode::Silence.as_str());
}

#[tokio::test]
async fn a_link_that_only_the_delegate_can_speak_on_is_marked_away_and_comes_back() {
    let code = away_and_back(Fault::Blocked(Way::Down)).await;
    assert_eq!(code, DisconnectCode::Silence.as_str());
}

#[tokio::test]
async fn a_road_of_half_a_second_is_borne() {
    is_borne(Fault::Latency(Duration::from_millis(250))).await;
}

#[tokio::test]
async fn a_road_that_carries_single_bytes_is_borne() {
    is_borne(Fault::Slices).await;
}

#[tokio::test]
async fn a_road_of_a_kilobyte_a_second_is_borne() {
    is_borne(Fault::BytesPerSecond(1024)).await;
}

#[tokio::test]
async fn a_road_that_comes_back_while_the_delegate_waits_is_used_within_two_heartbeats() {
    let host = Host::connected().await;
    host.road.set(Fault::Reset);
    host.delegate
        .until(|status| status.attempt >= 6 && status.state == Stage::Backoff)
        .await;
    host.road.set(Fault::None);
    let took = host.until_connected(true).await;
    assert!(took <= HEARTBEAT * 2, "back after {took:?}");
}
