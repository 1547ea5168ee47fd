//! A new key for a delegate that runs, for one that does not, and what becomes of old copies.

use crate::{control_plane::TestControlPlane, delegate::TestDelegate};
use delegate_agent::identity::Identity;
use link::client::Stage;
use wire::control::DisconnectCode;

async fn enrolled(control_plane: &TestControlPlane) -> TestDelegate {
    let mut delegate = TestDelegate::new(&control_plane.url());
    delegate.enrol(control_plane).await.expect("enrols");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    delegate
}

#[tokio::test]
async fn a_rotation_leaves_the_link_alone_and_an_old_copy_is_named_as_that() {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = enrolled(&control_plane).await;
    let mut old_copy = delegate.clone_host();
    let before = delegate.until_state(Stage::Live).await;

    let rotated = delegate.rotate().await.expect("rotates");
    let known = control_plane.delegate().await;
    assert_eq!(known["key"]["fingerprint"], rotated.key.fingerprint);
    assert!(known["key"]["next"].is_null(), "{known}");
    assert_ne!(rotated.key.fingerprint, rotated.ended);
    let after = delegate.until_state(Stage::Live).await;
    assert_eq!(
        (after.epoch, after.connections),
        (before.epoch, before.connections),
        "the link was dropped"
    );
    assert!(!delegate.identity().next_path().exists());

    old_copy.start().await;
    let status = old_copy.until_state(Stage::Backoff).await;
    let error = status.last_error.expect("says why");
    assert_eq!(error.code, Some(DisconnectCode::SupersededKey), "{error:?}");
    assert!(
        error.message.contains(&rotated.key.fingerprint),
        "{error:?}"
    );
    let hint = error.hint.expect("says what to do");
    assert!(hint.contains("gitspace delegate revoke"), "{hint}");
    assert!(
        hint.contains("restart delegate-agent, which reads it at its start"),
        "{hint}"
    );
    let pause = status
        .next_try
        .expect("dials again")
        .duration_since(error.at);
    assert!(pause.as_secs() > 30, "not in a loop: {pause}");
    let refused = old_copy.rotate().await.expect_err("it is an old copy");
    assert!(refused.contains("superseded"), "{refused}");
    assert!(!old_copy.identity().next_path().exists());
    assert_eq!(
        delegate.until_state(Stage::Live).await.connections,
        before.connections,
        "the old copy throws nobody out"
    );

    // And the link that is opened with the new key.
    delegate.link().reconnect();
    delegate
        .until(|status| status.state == Stage::Live && status.epoch > before.epoch)
        .await;
    let again = delegate.rotate().await.expect("rotates again");
    assert_eq!(again.ended, rotated.key.fingerprint);
    delegate.kill().await;
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
}

#[tokio::test]
async fn a_rotation_by_another_process_ends_the_link_that_was_opened_with_the_old_key() {
    let control_plane = TestControlPlane::start().await;
    let delegate = enrolled(&control_plane).await;
    let rightful = delegate.clone_host();
    rightful.rotate_alone().await.expect("rotates");
    let status = delegate.until_state(Stage::Backoff).await;
    let error = status.last_error.expect("says why");
    assert_eq!(error.code, Some(DisconnectCode::SupersededKey), "{error:?}");
    control_plane
        .until_delegate(|delegate| delegate["last_disconnect"]["code"] == "superseded_key")
        .await;
    // The old copy dials, and is refused.
    delegate.link().reconnect();
    control_plane
        .until_delegate(|delegate| delegate["last_refused"]["code"] == "superseded_key")
        .await;
}

#[tokio::test]
async fn a_rotation_that_was_begun_goes_on_with_the_key_it_made() {
    let control_plane = TestControlPlane::start().await;
    let delegate = enrolled(&control_plane).await;
    let file = delegate.identity();
    let identity = file.load().unwrap().unwrap();
    let next = Identity {
        delegate: identity.delegate,
        ..Identity::generate(&identity.name, &identity.control_plane).unwrap()
    };
    file.save_next(&next).unwrap();
    let rotated = delegate.rotate().await.expect("rotates");
    assert_eq!(
        rotated.key.fingerprint,
        next.key.public().kid().to_string(),
        "no second key was made"
    );
}

#[tokio::test]
async fn a_switch_that_the_control_plane_was_not_told_of_is_told_by_the_next_link() {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = enrolled(&control_plane).await;
    let twin = delegate.clone_host();
    delegate.kill().await;
    // Killed between the switch and the last word: the control plane has the key as the next one.
    let next = twin.propose_alone().await;
    let known = control_plane.delegate().await;
    assert_eq!(known["key"]["next"], next.key.public().kid().to_string());
    // With the key before it still gets in,
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    delegate.kill().await;
    // and with the next one, which ends the one before.
    delegate.identity().save(&next).unwrap();
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
    let known = control_plane.delegate().await;
    assert_eq!(
        known["key"]["fingerprint"],
        next.key.public().kid().to_string()
    );
    assert!(known["key"]["next"].is_null(), "{known}");
    let refused = twin.rotate_alone().await.expect_err("its key has ended");
    assert!(refused.contains("superseded"), "{refused}");
}
