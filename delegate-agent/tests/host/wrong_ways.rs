//! What a host is told that cannot enrol or connect: the real cause, and what mends it. The link says the same.

use crate::{
    delegate::TestDelegate,
    roads::{Authority, TestProxy, TlsFront, free_port, now},
};
use axum::{Router, http::StatusCode, routing::any};
use daemon::{ErrorChain, Hint as _, SystemClock};
use delegate_agent::{
    config::Origin,
    enrol::{Enrolment, enrol},
    identity::{Identity, IdentityFile},
    transport::{ProxyEnv, ProxyUrl, Transport},
};
use rcgen::{BasicConstraints, IsCa};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use wire::secret::Secret;

const DAY: Duration = Duration::from_hours(24);

/// A way that leads nowhere.
struct Way {
    url: String,
    proxy: Option<String>,
    authority: Option<Authority>,
}

impl Way {
    fn to(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            proxy: None,
            authority: None,
        }
    }

    fn through(proxy: impl Into<String>) -> Self {
        Self {
            proxy: Some(proxy.into()),
            ..Self::to("http://control.example")
        }
    }

    fn trusting(url: String, authority: Authority) -> Self {
        Self {
            authority: Some(authority),
            ..Self::to(url)
        }
    }

    /// As `enroll` prints it, and as the link tells it.
    async fn told(&self) -> (String, String) {
        let dir = tempfile::tempdir().unwrap();
        let root = camino::Utf8Path::from_path(dir.path()).unwrap();
        let mut delegate = TestDelegate::new(&self.url);
        delegate.proxy = self
            .proxy
            .as_deref()
            .map(|url| ProxyUrl::parse(url).unwrap());
        delegate.ca_file = self
            .authority
            .as_ref()
            .map(|authority| delegate.write("ca.pem", &authority.pem()));
        let transport = Transport::new(
            Origin::parse("control_plane_url", &self.url).unwrap(),
            delegate.proxy.clone(),
            &ProxyEnv::default(),
            delegate.ca_file.as_deref(),
        )
        .unwrap();
        let enrolment = Enrolment {
            transport: &transport,
            file: &IdentityFile::new(root.join("state")),
            name: "host-1",
            tags: &[],
            join_token: Secret::new("gsj_x"),
            again: false,
        };
        let error = enrol(enrolment, &SystemClock, |_| {}).await;
        let error = error.expect_err("there is no control plane");
        let enroll = format!(
            "{}; {}",
            ErrorChain(&error),
            error.hint().unwrap_or_default()
        );
        let identity = Identity {
            delegate: Some("0198c0de-0000-7000-8000-000000000001".parse().unwrap()),
            ..Identity::generate("host-1", transport.origin().ascii().as_str()).unwrap()
        };
        delegate.identity().save(&identity).unwrap();
        delegate.start().await;
        let status = delegate.until(|status| status.last_error.is_some()).await;
        let link = status.last_error.expect("told").message;
        (enroll, link)
    }

    async fn must_say(&self, words: &[&str]) {
        let (enroll, link) = self.told().await;
        for word in words {
            assert!(enroll.contains(word), "enroll: no `{word}` in\n{enroll}");
            assert!(link.contains(word), "link: no `{word}` in\n{link}");
        }
    }
}

/// Answers every request.
async fn http(answer: Router) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, answer).await.unwrap() });
    (address, tasks)
}

/// Says the same to everybody, as soon as a head is there.
async fn parrot(says: &'static str) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            drop(stream.read(&mut head).await);
            drop(stream.write_all(says.as_bytes()).await);
        }
    });
    (address, tasks)
}

#[tokio::test]
async fn a_name_without_an_address_is_no_matter_of_firewalls() {
    Way::to("http://no-such-host.invalid")
        .must_say(&[
            "the name of the control plane, `no-such-host.invalid`, has no address here",
            "getent hosts no-such-host.invalid",
        ])
        .await;
    Way::through("http://no-such-proxy.invalid:3128")
        .must_say(&[
            "the name of the proxy, `no-such-proxy.invalid`, has no address here",
            "`proxy`",
        ])
        .await;
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_named_with_whose_it_is() {
    let port = free_port();
    Way::to(format!("http://127.0.0.1:{port}"))
        .must_say(&["Connection refused", "nothing listens there"])
        .await;
    Way::through(format!("http://127.0.0.1:{port}"))
        .must_say(&[
            "cannot connect to the proxy `127.0.0.1",
            "is the proxy running?",
        ])
        .await;
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_with_what_it_wants() {
    let proxy = TestProxy::start(Some("user:p")).await;
    Way::through(proxy.url(""))
        .must_say(&["407", "write the user into `proxy`"])
        .await;
    Way::through(proxy.url("user:q@"))
        .must_say(&["407", "does not take this user with this password"])
        .await;
    for (says, wanted) in [
        (
            "HTTP/1.1 403 Forbidden\r\n\r\n",
            "its rules forbid it: let it connect to `control.example:80`",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\n\r\n",
            "it is the proxy that does not get there",
        ),
        (
            "HTTP/1.1 501 Unsupported method\r\n\r\n",
            "is it an HTTP proxy?",
        ),
        ("SSH-2.0-x\r\n\r\n", "is it an HTTP proxy?"),
    ] {
        let (address, _tasks) = parrot(says).await;
        Way::through(format!("http://{address}"))
            .must_say(&["the proxy `127.0.0.1", wanted])
            .await;
    }
}

#[tokio::test]
async fn a_scheme_that_the_port_does_not_speak_is_named() {
    let (address, _tasks) = http(Router::new()).await;
    Way::to(format!("https://{address}"))
        .must_say(&["answers without TLS", "its URL begins with `http://`"])
        .await;
    let front = TlsFront::bind(&Authority::new("theirs")).await;
    let plain = front.url().replace("https://", "http://");
    let wanted = ["that port speaks TLS", "write `https://`"];
    Way::to(&plain).must_say(&wanted).await;
    // Some servers say so themselves. This one does not, and says the same.
    let (address, _tasks) = parrot("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let (enroll, _) = Way::to(format!("http://{address}")).told().await;
    assert!(!enroll.contains("TLS"), "{enroll}");
}

#[tokio::test]
async fn another_server_is_named_as_what_it_is() {
    let unknown = r#"{"code":"unknown_host","message":"no gitspace is at this host"}"#;
    let gateway =
        Router::new().fallback(any(move || async move { (StatusCode::NOT_FOUND, unknown) }));
    let (address, _gateway) = http(gateway).await;
    Way::to(format!("http://{address}"))
        .must_say(&["a gateway answers there", "give the control plane's URL"])
        .await;
    let moved = Router::new().fallback(any(|| async {
        (
            StatusCode::MOVED_PERMANENTLY,
            [("location", "https://control.example/")],
        )
    }));
    let (address, _moved) = http(moved).await;
    Way::to(format!("http://{address}"))
        .must_say(&[
            "is not a control plane: it answers 301 Moved Permanently and sends on to `https://control.example/`",
            "give the URL that it leads to",
        ])
        .await;
    // It says yes to everything.
    let (address, _page) = http(Router::new().fallback(any(|| async { "<html>hello" }))).await;
    Way::to(format!("http://{address}"))
        .must_say(&[
            "is not a control plane: it answers 200 OK: <html>hello",
            "check the URL",
        ])
        .await;
}

#[tokio::test]
async fn a_certificate_that_is_not_taken_is_told_with_its_fault() {
    let front = TlsFront::bind(&Authority::new("theirs")).await;
    Way::trusting(front.url(), Authority::new("mine"))
        .must_say(&[
            "no authority that this host trusts has signed it",
            "set `ca_file`",
        ])
        .await;

    let authority = Authority::new("theirs");
    let front = TlsFront::bind(&authority).await;
    Way::trusting(front.url().replace("localhost", "127.0.0.1"), authority)
        .must_say(&[
            "it is for `localhost`, and not for `127.0.0.1`",
            "use a name that it has",
        ])
        .await;

    let authority = Authority::new("theirs");
    let yesterday = now() - DAY;
    let front = TlsFront::bind_until(&authority, yesterday).await;
    Way::trusting(front.url(), authority)
        .must_say(&["it ended at 20", "this host's clock says 20", "renew it"])
        .await;

    let authority = Authority::new("theirs");
    let tomorrow = now() + DAY;
    let front = TlsFront::bind_with(&authority, |params| params.not_before = tomorrow.into()).await;
    Way::trusting(front.url(), authority)
        .must_say(&["it holds from 20", "this host's clock is behind"])
        .await;

    let authority = Authority::new("its own");
    let front = TlsFront::bind_with(&authority, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    })
    .await;
    Way::trusting(front.url(), authority)
        .must_say(&["it is that of an authority itself", "`CA:TRUE`"])
        .await;
}
