//! SSH keys, and what gateways are told about them.

use super::{
    gateway_link::{dial, heard},
    support::{Answer, TestPlane, User},
};
use http::Method;
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use token::VerifyingKey;
use wire::gateway::{GRANT_PURPOSE, GrantClaims, RevokedSubject, SUBPROTOCOL, ToGateway};

pub(super) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPe2uGPLYg8zQVXu9Tq1UkcB4GVy1xZ3YtUAZwzPyE1o";
const OTHER_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";

async fn add(plane: &TestPlane, token: &str, key: &str) -> Answer {
    plane.post(token, "/ssh-keys", json!({"key": key})).await
}

async fn ask(plane: &TestPlane, question: Value) -> Answer {
    let gateway = plane.gateway().await;
    plane
        .post(gateway.token.expose(), "/gateways/ssh", question)
        .await
}

fn by_key(key: &str, proven: bool, gitspace: &str) -> Value {
    json!({"credential": {"by": "key", "key": key}, "proven": proven, "gitspace": gitspace})
}

async fn granted(plane: &TestPlane, gitspace: &str) -> GrantClaims {
    let answer = ask(plane, by_key(KEY, true, gitspace))
        .await
        .expect(200)
        .json();
    let key: VerifyingKey = plane.plane.grant_keys()[0].parse().unwrap();
    let grant = answer["grant"]["grant"].as_str().expect("a grant");
    token::verify(
        grant,
        [&key],
        GRANT_PURPOSE,
        daemon::Clock::now(&*plane.clock),
    )
    .unwrap()
}

/// Ada has the key and the gitspace `hers`; answers with its slug.
async fn ada(plane: &TestPlane) -> (User, String) {
    let ada = plane.user("ada").await;
    let slug = plane.gitspace(&ada.token, "hers").await;
    add(plane, &ada.token, &format!("{KEY} ada@laptop"))
        .await
        .expect(201);
    (ada, slug)
}

#[tokio::test]
async fn a_registered_key_is_listed_with_its_fingerprint_and_deleted() {
    let plane = TestPlane::start().await;
    let user = plane.user("ada").await;
    let made = add(&plane, &user.token, &format!("{KEY} ada@laptop"))
        .await
        .expect(201)
        .json();
    assert_eq!(
        (&made["name"], &made["key_type"], &made["fingerprint"]),
        (
            &json!("ada@laptop"),
            &json!("ssh-ed25519"),
            // As `ssh-keygen -l` shows it.
            &json!("SHA256:4dFMihZpXbx8cRjxnFhpHhtzCme0mNnBeoY/jePQXyU")
        )
    );
    let list = plane.get(&user.token, "/ssh-keys").await.json();
    assert_eq!(list["items"], json!([made]));
    let path = format!("/ssh-keys/{}", made["id"].as_str().unwrap());
    plane.delete(&user.token, &path).await.expect(204);
    plane.delete(&user.token, &path).await.expect(404);
    let list = plane.get(&user.token, "/ssh-keys").await.json();
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn a_key_belongs_to_one_user_and_nobody_learns_to_whom() {
    let plane = TestPlane::start().await;
    let (ada, _) = ada(&plane).await;
    let bob = plane.user("bob").await;
    let own = add(&plane, &ada.token, KEY).await.expect(409);
    let others = add(&plane, &bob.token, &format!("{KEY} mine"))
        .await
        .expect(409);
    assert_eq!(own.text, others.text);
    assert!(!others.text.contains("ada"), "{others:?}");
    let id = plane.get(&ada.token, "/ssh-keys").await.json()["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/ssh-keys/{id}");
    let foreign = plane.delete(&bob.token, &path).await.expect(404);
    let unknown = plane
        .delete(&bob.token, "/ssh-keys/00000000-0000-4000-8000-000000000099")
        .await;
    assert_eq!(foreign.text, unknown.text);
    plane.delete(&plane.admin, &path).await.expect(204);
    add(&plane, &bob.token, KEY).await.expect(201);
}

#[tokio::test]
async fn a_private_key_is_refused_with_a_hint_and_is_nowhere_afterwards() {
    let plane = TestPlane::start().await;
    let canary = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUcanarycanary";
    let private = format!(
        "-----BEGIN OPENSSH PRIVATE KEY-----\n{canary}\n-----END OPENSSH PRIVATE KEY-----\n"
    );
    let answer = add(&plane, &plane.admin, &private).await.expect(400);
    assert!(answer.text.contains("it is a private key"), "{answer:?}");
    assert!(answer.text.contains(".pub"), "{answer:?}");
    for file in std::fs::read_dir(&plane.dir).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes
            .windows(canary.len())
            .any(|at| at == canary.as_bytes());
        assert!(!found, "{} holds it", path.display());
    }
    assert!(!answer.text.contains(canary));
    for junk in [
        "",
        "x",
        &format!("no-pty {KEY}"),
        &format!("{KEY}\n{OTHER_KEY}"),
        "ssh-dss AAAAB3NzaC1kc3M=",
    ] {
        add(&plane, &plane.admin, junk).await.expect(400);
    }
}

#[tokio::test]
async fn an_offered_key_may_go_on_whatever_gitspace_is_named() {
    let plane = TestPlane::start().await;
    let (_, slug) = ada(&plane).await;
    let mut answers = BTreeSet::new();
    for gitspace in ["hers", &slug, "none", "..", ""] {
        let answer = ask(&plane, by_key(KEY, false, gitspace)).await.expect(200);
        answers.insert(answer.text);
    }
    assert_eq!(answers, BTreeSet::from(["{}".to_owned()]));
    for proven in [false, true] {
        for gitspace in ["hers", &slug, "none"] {
            let answer = ask(&plane, by_key(OTHER_KEY, proven, gitspace)).await;
            assert_eq!(answer.code(), "ssh_refused");
            answers.insert(answer.text);
        }
    }
    assert_eq!(answers.len(), 2, "{answers:?}");
}

#[tokio::test]
async fn a_proven_key_gets_a_grant_for_what_its_user_may_reach() {
    let plane = TestPlane::start().await;
    let (ada, slug) = ada(&plane).await;
    let gateway = plane.gateway().await;
    for name in ["hers", &slug] {
        let claims = granted(&plane, name).await;
        assert_eq!(
            (
                claims.gateway,
                claims.slug.as_str(),
                claims.user.to_string()
            ),
            (gateway.id, slug.as_str(), ada.id.clone())
        );
        assert!(claims.workspace && !claims.ports.contains(22));
    }
    let listed = plane.get(&ada.token, "/ssh-keys").await.json();
    assert!(listed["items"][0]["last_used"].is_string(), "{listed}");

    // Another's and none: the same answer, without a grant.
    let bobs = plane.user("bob").await;
    let foreign = plane.gitspace(&bobs.token, "his").await;
    let mut answers = BTreeSet::new();
    for gitspace in [
        foreign.as_str(),
        "his",
        "none-abcdef",
        "no such",
        "-oProxyCommand=x",
    ] {
        let answer = ask(&plane, by_key(KEY, true, gitspace)).await.expect(200);
        answers.insert(answer.text);
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(!answers.first().unwrap().contains("grant"), "{answers:?}");

    // An administrator reaches it by its slug.
    add(&plane, &plane.admin, OTHER_KEY).await.expect(201);
    let answer = ask(&plane, by_key(OTHER_KEY, true, &slug))
        .await
        .expect(200);
    assert!(answer.json()["grant"]["grant"].is_string(), "{answer:?}");
    let answer = ask(&plane, by_key(OTHER_KEY, true, "hers"))
        .await
        .expect(200);
    assert!(answer.json()["grant"].is_null(), "{answer:?}");
}

#[tokio::test]
async fn an_access_token_is_a_password_until_it_is_revoked() {
    let plane = TestPlane::start().await;
    let (ada, slug) = ada(&plane).await;
    let question = |token: &str| json!({"credential": {"by": "token", "token": token}, "proven": true, "gitspace": "hers"});
    let answer = ask(&plane, question(&ada.token)).await.expect(200).json();
    assert_eq!(answer["grant"]["slug"], json!(slug));
    assert_eq!(answer["user_name"], json!("ada"));
    for bad in ["", "x", "gsp_x", KEY] {
        assert_eq!(ask(&plane, question(bad)).await.code(), "ssh_refused");
    }
    plane
        .delete(&ada.token, &format!("/tokens/{}", ada.token_id))
        .await
        .expect(204);
    assert_eq!(
        ask(&plane, question(&ada.token)).await.code(),
        "ssh_refused"
    );
}

#[tokio::test]
async fn what_is_taken_away_ends_what_it_gave() {
    let plane = TestPlane::start().await;
    let (ada, _) = ada(&plane).await;
    let before = granted(&plane, "hers").await;
    let id = plane.get(&ada.token, "/ssh-keys").await.json()["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(before.id.to_string(), id, "the grants of a key have its id");
    let gateway = plane.gateway().await;
    let mut link = dial(&plane, gateway.token.expose(), SUBPROTOCOL)
        .await
        .unwrap();
    assert!(matches!(heard(&mut link).await, ToGateway::Snapshot { .. }));
    plane.clock.advance(Duration::from_secs(1));
    let others = plane.user("eve").await;
    plane
        .delete(&others.token, &format!("/grants/{id}"))
        .await
        .expect(404);
    plane
        .delete(&ada.token, &format!("/ssh-keys/{id}"))
        .await
        .expect(204);
    let refused = ask(&plane, by_key(KEY, true, "hers")).await;
    assert_eq!(refused.code(), "ssh_refused");
    match heard(&mut link).await {
        ToGateway::Revoked { revocation } => {
            let grant = before.id;
            assert_eq!(revocation.subject, RevokedSubject::Grant { grant });
            assert!(before.iat <= revocation.before, "{revocation:?}");
        }
        other => panic!("{other:?}"),
    }

    // Registered again it has another id, which nothing was revoked for.
    add(&plane, &ada.token, KEY).await.expect(201);
    assert_ne!(granted(&plane, "hers").await.id, before.id);
    plane
        .call(
            &plane.admin,
            Method::PATCH,
            &format!("/users/{}", ada.id),
            Some(json!({"disabled": true})),
        )
        .await
        .expect(200);
    for proven in [false, true] {
        let answer = ask(&plane, by_key(KEY, proven, "hers")).await;
        assert_eq!(answer.code(), "ssh_refused");
    }
}

#[tokio::test]
async fn known_hosts_are_empty_where_no_gateway_takes_ssh() {
    let plane = TestPlane::start().await;
    let answer = plane
        .get(&plane.admin, "/ssh/known-hosts")
        .await
        .expect(200);
    assert_eq!(
        (answer.text.as_str(), answer.header("content-type")),
        ("", "text/plain; charset=utf-8")
    );
}
