//! Enrolment in place of an identity, and who may touch the folder that it lies in.

use crate::{control_plane::TestControlPlane, delegate::TestDelegate};
use delegate_agent::identity::Identity;
use link::client::Stage;

fn bytes(delegate: &TestDelegate) -> Vec<u8> {
    std::fs::read(delegate.identity().path()).unwrap()
}

/// A key beside the identity: of a rotation, or, without a delegate, of an enrolment.
fn beside(delegate: &TestDelegate, is_rotation: bool) -> Identity {
    let identity = delegate.identity().load().unwrap().unwrap();
    let next = Identity {
        delegate: identity.delegate.filter(|_| is_rotation),
        ..Identity::generate(&identity.name, &identity.control_plane).unwrap()
    };
    delegate.identity().save_next(&next).unwrap();
    next
}

#[tokio::test]
async fn an_enrolment_again_that_is_refused_leaves_the_identity_as_it_was() {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    delegate.enrol(&control_plane).await.expect("enrols");
    let before = bytes(&delegate);
    for is_begun in [false, true] {
        if is_begun {
            beside(&delegate, true);
        }
        let error = delegate.enrol_again_with("gsj_wrong").await;
        let error = error.expect_err("refused");
        assert!(error.contains("the control plane refuses"), "{error}");
        assert!(bytes(&delegate) == before, "the identity was changed");
        assert!(!delegate.identity().next_path().exists());
    }
    // Its delegate was not revoked.
    let token = control_plane.join_token().await;
    let error = delegate.enrol_again_with(token.expose()).await;
    assert!(error.is_err() && bytes(&delegate) == before, "{error:?}");
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
}

#[tokio::test]
async fn an_enrolment_again_where_nobody_listens_leaves_the_identity_as_it_was() {
    let delegate = TestDelegate::new(&format!("http://localhost:{}", crate::roads::free_port()));
    let identity = Identity::generate("host-1", "http://control.example").unwrap();
    delegate.identity().save(&identity).unwrap();
    let before = bytes(&delegate);
    let error = delegate.enrol_again_with("gsj_x").await;
    let error = error.expect_err("nobody listens");
    assert!(error.contains("Connection refused"), "{error}");
    assert!(bytes(&delegate) == before, "the identity was changed");
    assert!(!delegate.identity().next_path().exists());
}

#[tokio::test]
async fn an_enrolment_again_takes_the_key_of_one_whose_answer_was_lost_and_never_that_of_a_rotation()
 {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    delegate.enrol(&control_plane).await.expect("enrols");
    for is_rotation in [true, false] {
        let before = delegate.identity().load().unwrap().unwrap();
        let next = beside(&delegate, is_rotation).key.public().to_string();
        control_plane.revoke().await;
        let token = control_plane.return_token("host-1").await;
        let enrolled = delegate.enrol_again_with(token.expose()).await;
        enrolled.expect("enrols");
        let after = delegate.identity().load().unwrap().unwrap();
        assert_eq!(after.delegate, before.delegate, "the same delegate");
        assert_ne!(after.key.public(), before.key.public());
        assert_eq!(after.key.public().to_string() != next, is_rotation);
        assert!(!delegate.identity().next_path().exists());
    }
    delegate.start().await;
    delegate.until_state(Stage::Live).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_takes_the_state_folder_of_a_running_delegate() {
    let control_plane = TestControlPlane::start().await;
    let mut delegate = TestDelegate::new(&control_plane.url());
    delegate.enrol(&control_plane).await.expect("enrols");
    delegate.start().await;
    let live = delegate.until_state(Stage::Live).await;
    let before = bytes(&delegate);
    let token = control_plane.join_token().await;
    let token = delegate.write("join-token", token.expose());
    let enroll = ["enroll", "--again", "--join-token-file", token.as_str()];
    for args in [&["run"][..], &enroll, &["rotate"]] {
        let done = delegate.command(args);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(69), "{args:?}: {said}");
        assert!(
            said.contains("another delegate-agent runs with the state folder")
                && said.contains("hint: stop it first"),
            "{args:?}: {said}"
        );
        assert!(bytes(&delegate) == before, "{args:?} changed the identity");
        assert!(!delegate.identity().next_path().exists(), "{args:?}");
    }
    let after = delegate.until_state(Stage::Live).await;
    assert_eq!(after.connections, live.connections, "the link was dropped");
    delegate.kill().await;
    let done = delegate.command(&["rotate"]);
    assert!(done.status.success(), "{done:?}");
    assert!(bytes(&delegate) != before);
}
