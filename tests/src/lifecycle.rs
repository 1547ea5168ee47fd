//! The way of a gitspace that nothing goes wrong with.

use crate::{
    deployment::{Daemon, Deployment, text},
    docker,
};
use anyhow::{Result, ensure};

pub(crate) const APP: &[(&str, &str)] = &[
    (
        ".devcontainer/devcontainer.json",
        r#"{
  // comments and trailing commas are taken
  "containerEnv": { "FROM_CONTAINER": "${containerWorkspaceFolder}" },
  "remoteEnv": { "FROM_REMOTE": "${containerEnv:FROM_CONTAINER}/x" },
  "forwardPorts": [8000],
  "onCreateCommand": "echo created >> .count",
  "postCreateCommand": ["sh", "-c", "echo post-created >> .count"],
  "postStartCommand": { "serve": "setsid -f python3 app.py >/tmp/app.log 2>&1", "count": "echo started >> .count" },
}"#,
    ),
    (
        "app.py",
        r#"import http.server
class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = ("app " + self.path + "\n" + str(self.headers)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), App).serve_forever()
"#,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_git_url_becomes_a_gitspace_that_is_used_stopped_started_reset_and_deleted() -> Result<()>
{
    let host = Deployment::start().await?;
    let url = host.git.repository("app", APP)?;
    let said = host.gitspace(&["create", &url, "--name", "app", "--wait"])?;
    ensure!(said.code == 0, "{said:#?}\n{}", host.logs());
    ensure!(
        said.err.contains("clone") || said.out.contains("clone"),
        "the wait shows the timeline's phases: {said:#?}"
    );

    // Commands see the workspace, their user and both environments.
    let said = host.gitspace(&[
        "exec",
        "app",
        "--",
        "sh",
        "-c",
        "pwd; id -un; echo $FROM_CONTAINER $FROM_REMOTE; cat .count; exit 3",
    ])?;
    ensure!(said.code == 3, "the command's own exit code: {said:#?}");
    ensure!(
        said.out
            == "/workspaces/app\ndeveloper\n/workspaces/app /workspaces/app/x\ncreated\npost-created\nstarted\n",
        "{said:#?}"
    );
    host.ok(&["exec", "app", "--", "sh", "-c", "echo mine > note"])?;

    // The app listens on 127.0.0.1 alone and is reached all the same.
    let grant = host.grant("app")?;
    let slug = text(&host.show("app")?, "/slug");
    let header = format!("gitspaces-grant: {}", text(&grant, "/grant"));
    let port_host = format!("8000--{slug}.localhost");
    host.until("the app answers", |host| {
        Ok(host
            .gateway(&port_host, "/hello", &["--header", &header])?
            .contains("app /hello"))
    })?;
    let ports = host.ok(&["ports", "app"])?;
    ensure!(ports.contains("8000"), "{ports}");

    // Stop keeps everything; start runs postStartCommand alone.
    host.ok(&["stop", "app", "--wait"])?;
    ensure!(host.state("app")? == "stopped");
    host.ok(&["start", "app", "--wait"])?;
    let out = host.ok(&["exec", "app", "--", "sh", "-c", "cat note .count"])?;
    ensure!(
        out == "mine\ncreated\npost-created\nstarted\nstarted\n",
        "{out}"
    );

    // Reset keeps the files and makes the container anew.
    host.ok(&["reset", "app", "--wait"])?;
    ensure!(host.state("app")? == "uninitialized");
    host.ok(&["start", "app", "--wait"])?;
    let out = host.ok(&["exec", "app", "--", "sh", "-c", "cat note .count"])?;
    ensure!(
        out == "mine\ncreated\npost-created\nstarted\nstarted\ncreated\npost-created\nstarted\n",
        "{out}"
    );

    let events = host.events("app")?;
    ensure!(
        events.iter().any(|event| event
            .get("duration_ms")
            .is_some_and(|ms| ms.as_u64().is_some())),
        "phases have durations: {events:#?}"
    );

    host.ok(&["delete", "app", "--wait"])?;
    ensure!(host.gitspace(&["show", "app"])?.code != 0);
    host.until("nothing of it is left but the spare", |host| {
        let left = docker::left_of(&host.label)?;
        Ok(!left.iter().any(|one| one.contains("app")) && left.len() <= 3)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_stop_and_start_find_the_gitspaces_and_their_processes_again() -> Result<()> {
    let mut host = Deployment::start().await?;
    let url = host.git.repository("app", APP)?;
    host.ok(&["create", &url, "--name", "app", "--wait"])?;
    let before = host.ok(&["exec", "app", "--", "pgrep", "-f", "app.py"])?;
    ensure!(
        host.stop(Daemon::Delegate)? == 0,
        "SIGTERM ends the delegate well\n{}",
        host.logs()
    );
    ensure!(
        host.stop(Daemon::Runner)? == 0,
        "SIGTERM ends the runner well\n{}",
        host.logs()
    );
    host.run(Daemon::Runner)?;
    host.run(Daemon::Delegate)?;
    let mut after = String::new();
    // Once more where it was reached just before the link was made anew for the runner that came back.
    host.until("it is reachable again", |host| {
        let said = host.gitspace(&["exec", "app", "--", "pgrep", "-f", "app.py"])?;
        after = said.out;
        Ok(said.code == 0)
    })?;
    ensure!(before == after, "the same process: {before} {after}");
    ensure!(host.state("app")? == "running");
    Ok(())
}
