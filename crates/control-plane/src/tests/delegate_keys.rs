//! Rotation of a delegate's key, as somebody would try who has one key of two, or none.

use super::support::{LIFE, OWN, TestPlane};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use token::{SigningKey, Validity};
use wire::{
    control::{KEY_CHECK_PURPOSE, KEY_PROPOSAL_PURPOSE, KEY_USE_PURPOSE, KeyClaims},
    ids::DelegateUuid,
};

struct Host {
    plane: TestPlane,
    id: DelegateUuid,
    key: SigningKey,
}

impl Host {
    async fn enrolled() -> Self {
        let plane = TestPlane::start().await;
        let key = SigningKey::generate().unwrap();
        let id = plane.delegate("host-1", &key).await;
        Self { plane, id, key }
    }

    /// About `subject`, over a nonce of the control plane's.
    async fn claims(&self, subject: &SigningKey) -> KeyClaims {
        let path = format!("/delegates/{}/key/challenge", self.id);
        let challenge = self.plane.post("", &path, json!({})).await.expect(201);
        let now = daemon::Clock::now(&*self.plane.clock);
        let Validity { iat, exp } = Validity::starting(now, LIFE);
        KeyClaims {
            delegate: self.id,
            audience: OWN.to_owned(),
            nonce: challenge.json()["nonce"].as_str().unwrap().to_owned(),
            public_key: subject.public().to_string(),
            link: None,
            iat,
            exp,
        }
    }

    async fn propose(&self, by_current: String, by_next: String) -> (u16, Value) {
        let body = json!({"by_current": by_current, "by_next": by_next});
        let path = format!("/delegates/{}/key", self.id);
        let answer = self.plane.call("", Method::PUT, &path, Some(body)).await;
        (answer.status.as_u16(), answer.json())
    }

    async fn prove(&self, what: &str, proof: String) -> (u16, Value) {
        let path = format!("/delegates/{}/key/{what}", self.id);
        let answer = self.plane.post("", &path, json!({"proof": proof})).await;
        (answer.status.as_u16(), answer.json())
    }

    async fn key(&self) -> Value {
        let shown = self.plane.get(&self.plane.admin, "/delegates/host-1").await;
        shown.json()["key"].clone()
    }
}

fn sign(claims: &KeyClaims, key: &SigningKey, purpose: &str) -> String {
    token::sign(claims, key, purpose).unwrap()
}

#[tokio::test]
async fn a_key_is_proposed_by_both_keys_over_a_fresh_nonce_or_not_at_all() {
    let host = Host::enrolled().await;
    let (next, other) = (
        SigningKey::generate().unwrap(),
        SigningKey::generate().unwrap(),
    );
    let good = host.claims(&next).await;
    let proposal = |claims: &KeyClaims, current: &SigningKey, next: &SigningKey| {
        (
            sign(claims, current, KEY_PROPOSAL_PURPOSE),
            sign(claims, next, KEY_PROPOSAL_PURPOSE),
        )
    };
    let with = |change: fn(&mut KeyClaims)| {
        let mut claims = good.clone();
        change(&mut claims);
        proposal(&claims, &host.key, &next)
    };
    let hostile = [
        ("only the next key signed", proposal(&good, &next, &next)),
        (
            "only the key in force signed",
            proposal(&good, &host.key, &host.key),
        ),
        ("another key signed for it", proposal(&good, &other, &next)),
        (
            "another key signed as next",
            proposal(&good, &host.key, &other),
        ),
        (
            "a nonce of nobody's",
            with(|claims| "x".clone_into(&mut claims.nonce)),
        ),
        (
            "another control plane",
            with(|claims| "https://evil.example".clone_into(&mut claims.audience)),
        ),
        ("no token at all", ("x".to_owned(), "y".to_owned())),
        (
            "another purpose",
            (
                sign(&good, &host.key, KEY_CHECK_PURPOSE),
                sign(&good, &next, KEY_CHECK_PURPOSE),
            ),
        ),
        (
            "different claims",
            (
                sign(&good, &host.key, KEY_PROPOSAL_PURPOSE),
                with(|claims| claims.link = Some(wire::control::Epoch(1))).1,
            ),
        ),
    ];
    for (what, (by_current, by_next)) in hostile {
        let (status, answer) = host.propose(by_current, by_next).await;
        assert_eq!(
            (status, answer["code"].as_str()),
            (403, Some("bad_proof")),
            "{what}: {answer}"
        );
    }
    let before = host.key().await;
    assert!(before["next"].is_null(), "{before}");

    let (by_current, by_next) = proposal(&good, &host.key, &next);
    host.plane.clock.advance(Duration::from_secs(120));
    let (status, answer) = host.propose(by_current, by_next).await;
    assert_eq!((status, answer["code"].as_str()), (403, Some("clock_skew")));
    let said = answer["message"].as_str().unwrap();
    assert!(
        said.contains("the delegate's clock is 2 min behind the control plane's, which says"),
        "{answer}"
    );

    let fresh = host.claims(&next).await;
    let (by_current, by_next) = proposal(&fresh, &host.key, &next);
    let (status, answer) = host.propose(by_current, by_next).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["fingerprint"], before["fingerprint"]);
    assert_eq!(answer["next"], next.public().kid().to_string());
}

#[tokio::test]
async fn a_question_changes_nothing_and_the_first_use_ends_the_key_before() {
    let host = Host::enrolled().await;
    let next = SigningKey::generate().unwrap();
    let claims = host.claims(&next).await;
    let signed = |key| sign(&claims, key, KEY_PROPOSAL_PURPOSE);
    let (status, _) = host.propose(signed(&host.key), signed(&next)).await;
    assert_eq!(status, 200);
    let both = host.key().await;

    for key in [&host.key, &next] {
        let claims = host.claims(key).await;
        let (status, answer) = host
            .prove("check", sign(&claims, key, KEY_CHECK_PURPOSE))
            .await;
        assert_eq!(status, 200, "{answer}");
        let (status, _) = host
            .prove("use", sign(&claims, key, KEY_CHECK_PURPOSE))
            .await;
        assert_eq!(status, 403, "a question is no use");
    }
    let about_next = host.claims(&next).await;
    let (status, _) = host
        .prove("use", sign(&about_next, &host.key, KEY_USE_PURPOSE))
        .await;
    assert_eq!(status, 403, "nobody speaks for another key");
    assert_eq!(host.key().await, both);

    let used = sign(&about_next, &next, KEY_USE_PURPOSE);
    for _ in 0..2 {
        let (status, answer) = host.prove("use", used.clone()).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["fingerprint"], next.public().kid().to_string());
        assert!(answer["next"].is_null(), "{answer}");
    }
    let claims = host.claims(&host.key).await;
    let (status, answer) = host
        .prove("check", sign(&claims, &host.key, KEY_CHECK_PURPOSE))
        .await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (403, Some("superseded_key")),
        "{answer}"
    );
    host.plane
        .delete(&host.plane.admin, "/delegates/host-1")
        .await
        .expect(204);
    let claims = host.claims(&next).await;
    let (status, answer) = host
        .prove("check", sign(&claims, &next, KEY_CHECK_PURPOSE))
        .await;
    assert_eq!((status, answer["code"].as_str()), (403, Some("revoked")));
}

#[tokio::test]
async fn a_token_for_a_return_is_made_for_a_revoked_delegate_alone() {
    let host = Host::enrolled().await;
    let plane = &host.plane;
    let make = async |body| plane.post(&plane.admin, "/join-tokens", body).await;
    make(json!({"delegate": "host-1"})).await.expect(400);
    make(json!({"delegate": "nobody"})).await.expect(400);
    plane
        .delete(&plane.admin, "/delegates/host-1")
        .await
        .expect(204);
    make(json!({"delegate": "host-1", "uses": 2}))
        .await
        .expect(400);
    let made = make(json!({"delegate": "host-1"})).await.expect(201);
    assert_eq!(made.json()["delegate"], json!(host.id));
}
