//! Who may do what: every endpoint against every kind of caller.

use super::support::{TestPlane, request};
use axum::body::Body;
use http::{Method, header};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

/// Who gets in.
#[derive(Clone, Copy, PartialEq)]
enum For {
    Anybody,
    Users,
    Owner,
    Admins,
    Gateways,
}

fn endpoints() -> Vec<(&'static str, &'static str, For)> {
    use For::{Admins, Anybody, Gateways, Owner, Users};
    vec![
        ("get", "/healthz", Anybody),
        ("get", "/version", Anybody),
        ("post", "/delegates/enroll", Anybody),
        ("put", "/delegates/{delegate}/key", Anybody),
        ("post", "/delegates/{delegate}/key/challenge", Anybody),
        ("post", "/delegates/{delegate}/key/check", Anybody),
        ("post", "/delegates/{delegate}/key/use", Anybody),
        ("get", "/gateways/connect", Gateways),
        ("post", "/gateways/exchange", Gateways),
        ("post", "/gateways/ssh", Gateways),
        ("post", "/gateways/renew", Gateways),
        ("post", "/gateways/wake", Gateways),
        ("get", "/me", Users),
        ("get", "/gitspaces", Users),
        ("post", "/gitspaces", Users),
        ("get", "/gitspaces/{gitspace}", Owner),
        ("delete", "/gitspaces/{gitspace}", Owner),
        ("post", "/gitspaces/{gitspace}/actions", Owner),
        ("get", "/gitspaces/{gitspace}/events", Owner),
        ("get", "/gitspaces/{gitspace}/logs", Owner),
        ("post", "/gitspaces/{gitspace}/grants", Owner),
        ("post", "/gitspaces/{gitspace}/links", Owner),
        ("get", "/gitspaces/{gitspace}/ports", Owner),
        ("put", "/gitspaces/{gitspace}/ports/{port}", Owner),
        ("delete", "/grants/{grant}", Users),
        ("get", "/delegates", Admins),
        ("get", "/delegates/{delegate}", Admins),
        ("delete", "/delegates/{delegate}", Admins),
        (
            "delete",
            "/delegates/{delegate}/unaccounted-gitspaces/{unaccounted}",
            Admins,
        ),
        ("post", "/delegates/{delegate}/probe", Admins),
        ("get", "/join-tokens", Admins),
        ("post", "/join-tokens", Admins),
        ("delete", "/join-tokens/{join_token}", Admins),
        ("get", "/gateways", Admins),
        ("post", "/gateways", Admins),
        ("delete", "/gateways/{gateway}", Admins),
        ("get", "/infra-providers", Users),
        ("post", "/infra-providers", Admins),
        ("delete", "/infra-providers/{infra_provider}", Admins),
        ("post", "/infra-providers/{infra_provider}/machines", Admins),
        ("get", "/machines", Users),
        ("delete", "/machines/{machine}", Admins),
        ("get", "/users", Admins),
        ("post", "/users", Admins),
        ("patch", "/users/{user}", Admins),
        ("get", "/users/{user}/tokens", Admins),
        ("post", "/users/{user}/tokens", Admins),
        ("get", "/tokens", Users),
        ("post", "/tokens", Users),
        ("delete", "/tokens/{token}", Users),
        ("get", "/git-credentials", Users),
        ("put", "/git-credentials", Users),
        ("delete", "/git-credentials/{credential}", Users),
        ("get", "/ssh-keys", Users),
        ("post", "/ssh-keys", Users),
        ("delete", "/ssh-keys/{key}", Users),
        ("get", "/ssh/known-hosts", Users),
    ]
}

fn body_of(method: &str, path: &str) -> Value {
    match (method, path) {
        ("post", "/gitspaces") => json!({"repo": {"url": "https://example.com/x"}, "start": false}),
        ("post", "/gitspaces/{gitspace}/actions") => json!({"action": "stop"}),
        ("post", "/users") => json!({"name": "x", "role": "developer"}),
        ("post", "/gateways") => json!({"name": "x"}),
        ("post", "/infra-providers") => json!({"name": "x", "kind": "host"}),
        ("post", "/tokens" | "/users/{user}/tokens") => json!({"name": "x"}),
        ("post", "/infra-providers/{infra_provider}/machines") => {
            json!({"name": "x", "resources": {"cpu_millis": 1000, "memory_bytes": 1_073_741_824, "pids": 100}})
        }
        ("put", "/git-credentials") => {
            json!({"host": "example.com", "username": "a", "secret": "b"})
        }
        ("put", "/gitspaces/{gitspace}/ports/{port}") => json!({"visibility": "project"}),
        ("post", "/ssh-keys") => json!({"key": super::ssh::KEY}),
        _ => json!({}),
    }
}

fn fill(path: &str, gitspace: &str) -> String {
    let nobody = "00000000-0000-4000-8000-000000000099";
    let mut filled = path
        .replace("{gitspace}", gitspace)
        .replace("{port}", "3000");
    while let (Some(from), Some(to)) = (filled.find('{'), filled.find('}')) {
        filled.replace_range(from..=to, nobody);
    }
    filled
}

#[tokio::test]
async fn the_matrix_names_every_endpoint_of_the_description() {
    let plane = TestPlane::start().await;
    let description = plane.get("", "/openapi.json").await.expect(200).json();
    let described: BTreeSet<(String, String)> = description["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let path = path.strip_prefix("/api/v1").unwrap().to_owned();
            let methods: Vec<_> = item.as_object().unwrap().keys().cloned().collect();
            methods
                .into_iter()
                .map(move |method| (method, path.clone()))
        })
        .collect();
    let listed: BTreeSet<(String, String)> = endpoints()
        .into_iter()
        .map(|(method, path, _)| (method.to_owned(), path.to_owned()))
        .collect();
    assert_eq!(described, listed);
}

#[tokio::test]
async fn nobody_gets_in_without_credentials_that_hold() {
    let plane = TestPlane::start().await;
    let short = plane
        .post(
            &plane.admin,
            "/tokens",
            json!({"name": "short", "expires_in": 60}),
        )
        .await
        .json();
    let (revoked, disabled) = (plane.user("revoked").await, plane.user("disabled").await);
    let gitspace = plane.gitspace(&revoked.token, "mine").await;
    plane
        .delete(&revoked.token, &format!("/tokens/{}", revoked.token_id))
        .await
        .expect(204);
    plane
        .call(
            &plane.admin,
            Method::PATCH,
            &format!("/users/{}", disabled.id),
            Some(json!({"disabled": true})),
        )
        .await
        .expect(200);
    plane.clock.advance(Duration::from_secs(61));
    let callers = [
        String::new(),
        short["token"].as_str().unwrap().to_owned(),
        revoked.token,
        disabled.token,
        format!("gsp_{}", "a".repeat(52)),
        "gsp_".to_owned(),
        "x".repeat(5000),
        plane.gateway().await.token.expose().to_owned(),
    ];
    let mut answers = BTreeSet::new();
    for (method, path, who) in endpoints() {
        if matches!(who, For::Anybody | For::Gateways) {
            continue;
        }
        for token in &callers {
            // Each failure counts; the limit is another test's.
            plane.clock.advance(Duration::from_secs(3));
            let answer = plane
                .call(
                    token,
                    method.to_uppercase().parse().unwrap(),
                    &fill(path, &gitspace),
                    Some(body_of(method, path)),
                )
                .await;
            assert_eq!(answer.status, 401, "{method} {path} {answer:?}");
            answers.insert(answer.text);
        }
    }
    assert_eq!(answers.len(), 1, "answers tell callers apart: {answers:?}");
}

#[tokio::test]
async fn a_developer_reaches_the_own_things_and_nothing_else() {
    let plane = TestPlane::start().await;
    plane.gateway().await;
    let (owner, other) = (plane.user("owner").await, plane.user("other").await);
    let slug = plane.gitspace(&owner.token, "mine").await;
    let id = plane.get(&owner.token, "/gitspaces/mine").await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for (method, path, who) in endpoints() {
        let verb: Method = method.to_uppercase().parse().unwrap();
        // Last, because it succeeds.
        if (method, path) == ("delete", "/gitspaces/{gitspace}") {
            continue;
        }
        let body = Some(body_of(method, path));
        let as_other = async |gitspace: &str| {
            let path = fill(path, gitspace);
            plane
                .call(&other.token, verb.clone(), &path, body.clone())
                .await
        };
        match who {
            For::Anybody => {}
            For::Gateways => assert_eq!(as_other("x").await.status, 401, "{method} {path}"),
            For::Users => {
                let status = as_other("x").await.status.as_u16();
                assert!(
                    matches!(status, 200 | 201 | 204 | 404),
                    "{method} {path} {status}"
                );
            }
            For::Admins => {
                let answer = as_other("x").await;
                assert_eq!(
                    (answer.status.as_u16(), answer.code().as_str()),
                    (403, "admin_only"),
                    "{method} {path}"
                );
            }
            For::Owner => {
                for name in ["mine", &slug, &id] {
                    let answer = as_other(name).await;
                    let unknown = as_other("there-is-none").await;
                    assert_eq!(answer.status, 404, "{method} {path} {name}");
                    assert_eq!(answer.text, unknown.text, "it tells that it exists");
                    for token in [&owner.token, &plane.admin] {
                        if name == "mine" && *token == plane.admin {
                            continue;
                        }
                        let answer = plane
                            .call(token, verb.clone(), &fill(path, name), body.clone())
                            .await;
                        assert!(
                            answer.status.is_success(),
                            "{method} {path} {name} {answer:?}"
                        );
                    }
                }
            }
        }
    }
    for name in ["mine", &slug, &id] {
        plane
            .delete(&other.token, &format!("/gitspaces/{name}"))
            .await
            .expect(404);
    }
    plane
        .delete(&plane.admin, &format!("/gitspaces/{slug}"))
        .await
        .expect(202);
}

#[tokio::test]
async fn what_is_anothers_cannot_be_listed_or_deleted() {
    let plane = TestPlane::start().await;
    let (owner, other) = (plane.user("owner").await, plane.user("other").await);
    plane.gitspace(&owner.token, "mine").await;
    let credential = plane
        .call(
            &owner.token,
            Method::PUT,
            "/git-credentials",
            Some(json!({"host": "example.com", "username": "a", "secret": "hunter2"})),
        )
        .await
        .expect(200);
    assert!(!credential.text.contains("hunter2"));
    let credential = credential.json()["id"].as_str().unwrap().to_owned();
    for list in ["/gitspaces", "/git-credentials"] {
        let seen = plane.get(&other.token, list).await.expect(200).json();
        assert_eq!(seen["items"], json!([]), "{list}");
    }
    let everybodys = plane.get(&other.token, "/gitspaces?all=true").await;
    assert_eq!(everybodys.code(), "admin_only");
    plane
        .delete(&other.token, &format!("/git-credentials/{credential}"))
        .await
        .expect(404);
    plane
        .delete(&other.token, &format!("/tokens/{}", owner.token_id))
        .await
        .expect(404);
    plane
        .delete(&plane.admin, &format!("/tokens/{}", owner.token_id))
        .await
        .expect(204);
    plane.get(&owner.token, "/me").await.expect(401);
    let all = plane.get(&plane.admin, "/gitspaces?all=true").await.json();
    assert_eq!(all["items"][0]["owner"], "owner");
}

#[tokio::test]
async fn too_many_failures_from_an_address_are_told_to_wait_and_a_valid_token_still_works() {
    let plane = TestPlane::start().await;
    let mut codes = BTreeSet::new();
    for _ in 0..25 {
        codes.insert(plane.get("gsp_x", "/me").await.status.as_u16());
    }
    assert_eq!(codes, BTreeSet::from([401, 429]));
    let waiting = plane.get("gsp_x", "/me").await;
    assert_eq!(waiting.header("retry-after"), "4");
    plane.get(&plane.admin, "/me").await.expect(200);
    plane.clock.advance(Duration::from_secs(3));
    plane.get("gsp_x", "/me").await.expect(401);
}

#[tokio::test]
async fn an_administrator_does_not_lock_himself_out() {
    let plane = TestPlane::start().await;
    let me = plane.get(&plane.admin, "/me").await.json();
    let path = format!("/users/{}", me["id"].as_str().unwrap());
    for body in [json!({"disabled": true}), json!({"role": "developer"})] {
        let answer = plane
            .call(&plane.admin, Method::PATCH, &path, Some(body))
            .await;
        assert_eq!(answer.code(), "own_account");
    }
}

#[tokio::test]
async fn two_credentials_or_two_hosts_are_none() {
    let plane = TestPlane::start().await;
    let twice = request(&plane.admin, Method::GET, "/me")
        .header(header::AUTHORIZATION, format!("Bearer {}", plane.admin));
    plane
        .send(twice.body(Body::empty()).unwrap())
        .await
        .expect(401);
    let hosts = request(&plane.admin, Method::GET, "/me").header(header::HOST, "localhost");
    plane
        .send(hosts.body(Body::empty()).unwrap())
        .await
        .expect(421);
}
