//! The client against real sockets.

use super::*;
use crate::{
    api::Object,
    error::CliError,
    exit::Exit,
    test_server::{api, full, gitspace, json, pieces, serve},
};
use http::Method;
use serde_json::{Value, json as value};
use std::{
    io,
    sync::{Arc, Mutex},
};
use wire::{api::Gitspace, problem::Problem};

type Seen = Arc<Mutex<Vec<String>>>;

#[tokio::test]
async fn a_refusal_comes_in_the_servers_words_and_anything_else_is_named_as_that() {
    let port = serve(|request| async move {
        Ok(match request.uri().path() {
            "/api/v1/a" => json(
                401,
                &serde_json::to_value(
                    Problem::new("unauthenticated", "who are you").hint("log in"),
                )
                .unwrap(),
            ),
            "/api/v1/b" => full(421, "<html>\x1b[2J</html>"),
            "/api/v1/c" => full(302, ""),
            "/api/v1/d" => full(200, "not JSON"),
            _ => full(404, ""),
        })
    })
    .await;
    let api = api(port);
    for (path, exit, words, hint) in [
        ("/a", Exit::Refused, "who are you", "log in"),
        ("/b", Exit::Config, "421", "does not go by this name"),
        ("/c", Exit::Config, "302", "redirects are not followed"),
        ("/d", Exit::Unavailable, "something else", "control plane"),
        ("/e", Exit::NotFound, "404", ""),
    ] {
        let error = api.get::<Value>(path).await.unwrap_err();
        assert_eq!(error.exit(), exit, "{path}");
        assert!(error.to_string().contains(words), "{path}: {error}");
        let said = error.hint().unwrap_or_default();
        assert!(said.contains(hint), "{path}: {said}");
    }
}

#[tokio::test]
async fn a_post_whose_answer_was_cut_is_sent_again_under_the_same_key() {
    let seen = Seen::default();
    let keys = seen.clone();
    let port = serve(move |request| {
        let key = request.headers()["idempotency-key"]
            .to_str()
            .unwrap()
            .to_owned();
        let bearer = request.headers()["authorization"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(bearer, "Bearer gsp_test");
        let count = {
            let mut keys = keys.lock().unwrap();
            keys.push(key);
            keys.len()
        };
        async move {
            match count {
                1 => Err(io::Error::other("cut before the answer")),
                2 => Ok(pieces(&["{\"half\":"], true)),
                _ => Ok(json(201, &value!({"made": true}))),
            }
        }
    })
    .await;
    let api = api(port);
    let made: Object<Value> = api.post("/gitspaces", &value!({})).await.unwrap();
    assert_eq!(made.raw, value!({"made": true}));
    {
        let keys = seen.lock().unwrap();
        assert_eq!(keys.len(), 3);
        assert!(keys.iter().all(|key| *key == keys[0]));
    }
    let _: Object<Value> = api.post("/gitspaces", &value!({})).await.unwrap();
    let keys = seen.lock().unwrap();
    assert_ne!(keys[0], keys[3], "another request has another key");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_as_that() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = CliError::from(api(port).get::<Value>("/me").await.unwrap_err());
    assert_eq!(error.exit(), Exit::Unavailable);
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[tokio::test]
async fn an_idle_connection_is_used_again_and_replaced_once_it_is_closed() {
    let port = serve(|_| async { Ok(json(200, &value!({}))) }).await;
    let connector = Connector::new(None);
    let client = Client::new(connector, Arc::new(daemon::SequentialIds::default()));
    // Names under .localhost are never asked for at a resolver.
    let base = Base::parse(&format!("http://any.name.localhost:{port}")).unwrap();
    let mut call = Call::new(&base.origin, Method::GET, "/".to_owned());
    client.fetch(&call).await.unwrap();
    client.fetch(&call).await.unwrap();
    call = call.header(
        http::header::CONNECTION,
        http::HeaderValue::from_static("close"),
    );
    client.fetch(&call).await.unwrap();
    client.fetch(&call).await.unwrap();
}

#[tokio::test]
async fn an_answer_without_end_is_refused() {
    let port = serve(|_| async {
        let piece = "x".repeat(1024 * 1024);
        Ok(pieces(&vec![piece.as_str(); 17], false))
    })
    .await;
    let error = api(port).get::<Value>("/me").await.unwrap_err();
    assert!(matches!(error, RequestError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn all_pages_of_a_list_are_read_and_shown_as_the_server_wrote_them() {
    let port = serve(|request| async move {
        Ok(match request.uri().query() {
            None => json(
                200,
                &value!({"items": [gitspace("running", 1)], "next": "a/b"}),
            ),
            Some("cursor=a%2Fb") => json(200, &value!({"items": [gitspace("stopped", 2)]})),
            Some(_) => full(400, ""),
        })
    })
    .await;
    let all: Vec<Object<Gitspace>> = api(port).list("/gitspaces").await.unwrap();
    let states: Vec<_> = all
        .iter()
        .map(|gitspace| gitspace.it.state.as_str())
        .collect();
    assert_eq!(states, ["running", "stopped"]);
    let shown = serde_json::to_value(&all).unwrap();
    assert_eq!(shown[0]["field_of_the_future"], 1);
}

#[tokio::test]
async fn only_the_certificates_of_the_named_file_are_trusted() {
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["tls.localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![cert.der().clone()], key)
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio_util::task::TaskTracker::new().spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            drop(acceptor.accept(stream).await);
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let path = camino::Utf8PathBuf::from_path_buf(dir.path().join("ca.pem")).unwrap();
    std::fs::write(&path, cert.pem()).unwrap();
    let connect = |host: &str, ca: Option<camino::Utf8PathBuf>| {
        let base = Base::parse(&format!("https://{host}:{port}")).unwrap();
        async move { Connector::new(ca).connect(&base.origin).await }
    };
    connect("tls.localhost", Some(path.clone())).await.unwrap();
    let error = connect("other.localhost", Some(path.clone()))
        .await
        .unwrap_err();
    assert!(matches!(error, RequestError::Tls { .. }), "{error}");
    let error = connect("tls.localhost", None).await.unwrap_err();
    assert!(
        matches!(error, RequestError::Tls { .. } | RequestError::NoRoots),
        "{error}"
    );
    std::fs::write(&path, "no certificate").unwrap();
    let error = connect("tls.localhost", Some(path)).await.unwrap_err();
    assert!(matches!(error, RequestError::CaFile { .. }), "{error}");
}
