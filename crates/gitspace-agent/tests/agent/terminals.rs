use crate::harness::{Agent, Terminals, within};
use http::{Method, StatusCode};
use wire::{
    failure::FailureCode,
    ids::TerminalUuid,
    workspace::{ClientMessage, ExecRequest, ServerMessage, Size, TerminalInfo, TerminalRequest},
};

const SIZE: Size = Size { rows: 24, cols: 80 };

async fn open(agent: &Agent) -> TerminalUuid {
    let request = TerminalRequest {
        argv: vec!["/bin/sh".to_owned()],
        size: Some(SIZE),
    };
    agent
        .json::<TerminalInfo>(Method::POST, "/api/v1/terminals", &request)
        .await
        .id
}

fn attach(from: Option<u64>) -> ClientMessage {
    ClientMessage::Attach { from, size: SIZE }
}

fn path(id: TerminalUuid) -> String {
    format!("/api/v1/terminals/{id}/attach")
}

#[tokio::test]
async fn a_terminal_survives_a_killed_serve_with_screen_and_scrollback() {
    let mut agent = Agent::start().await;
    agent.configure(Vec::new()).await;
    let id = open(&agent).await;
    let mut socket = agent.socket(&path(id), &attach(None)).await;
    assert!(matches!(
        socket.next_message().await,
        ServerMessage::Attached { snapshot: true, .. }
    ));
    socket
        .type_in("for i in $(seq 100); do echo line-$i; done; export KEPT=still; echo re''ady\n")
        .await;
    socket.until_shown("ready").await;

    agent.kill_and_restart().await;
    let terminals: Terminals = agent.json(Method::GET, "/api/v1/terminals", &()).await;
    assert_eq!(
        terminals
            .iter()
            .map(|terminal| terminal.id)
            .collect::<Vec<_>>(),
        [id]
    );
    let mut socket = agent.socket(&path(id), &attach(None)).await;
    assert!(matches!(
        socket.next_message().await,
        ServerMessage::Attached { snapshot: true, .. }
    ));
    // Long scrolled away, and there again.
    socket.until_shown("line-3").await;
    socket.until_shown("ready").await;
    socket.type_in("echo $KEPT-$KEPT\n").await;
    socket.until_shown("still-still").await;

    socket.type_in("exit 5\n").await;
    assert!(matches!(
        socket.next_message().await,
        ServerMessage::Exited { exit_code: 5 }
    ));
}

#[tokio::test]
async fn a_client_that_was_cut_off_goes_on_where_it_was() {
    let agent = Agent::start().await;
    agent.configure(Vec::new()).await;
    let id = open(&agent).await;
    let mut first = agent.socket(&path(id), &attach(None)).await;
    let ServerMessage::Attached { position, .. } = first.next_message().await else {
        panic!("not attached");
    };
    let mut second = agent.socket(&path(id), &attach(Some(position))).await;
    let again = second.next_message().await;
    assert!(
        matches!(again, ServerMessage::Attached { position: same, snapshot: false, .. } if same == position),
        "{again:?}"
    );
    first.type_in("echo a''b\n").await;
    // Both see it: several may be attached at once.
    first.until_shown("ab").await;
    second.until_shown("ab").await;
    let mut wrong = agent.socket(&path(id), &attach(Some(u64::MAX))).await;
    assert!(matches!(
        wrong.next_message().await,
        ServerMessage::Attached { snapshot: true, .. }
    ));
    first.type_in("exit\n").await;
    assert!(matches!(
        first.next_message().await,
        ServerMessage::Exited { exit_code: 0 }
    ));
}

#[tokio::test]
async fn the_last_size_holds() {
    let agent = Agent::start().await;
    agent.configure(Vec::new()).await;
    let id = open(&agent).await;
    let mut socket = agent.socket(&path(id), &attach(None)).await;
    socket.next_message().await;
    socket
        .say(&ClientMessage::Resize {
            size: Size {
                rows: 33,
                cols: 101,
            },
        })
        .await;
    socket.type_in("stty size\n").await;
    socket.until_shown("33 101").await;
    socket
        .say(&ClientMessage::Resize {
            size: Size {
                rows: 0,
                cols: u16::MAX,
            },
        })
        .await;
    socket.type_in("stty size\n").await;
    socket.until_shown("1 500").await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_never_blocks_the_shell() {
    let agent = Agent::start().await;
    agent.configure(Vec::new()).await;
    let id = open(&agent).await;
    // Attached, and never read from again.
    let mut stuck = agent.socket(&path(id), &attach(None)).await;
    stuck.next_message().await;
    let mut socket = agent.socket(&path(id), &attach(None)).await;
    socket.next_message().await;
    let done = agent.path("done");
    socket
        .type_in(&format!(
            "yes $(seq -s- 1 30) | head -c 1500000; touch {done}\n"
        ))
        .await;
    drop(socket);
    within("the shell went on", async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(10));
        while !std::path::Path::new(&done).exists() {
            ticks.tick().await;
        }
    })
    .await;
    let fell_behind = stuck.next_message().await;
    assert!(
        matches!(fell_behind, ServerMessage::Attached { snapshot: true, .. }),
        "{fell_behind:?}"
    );
}

#[tokio::test]
async fn a_closed_terminal_is_gone_and_its_shell_too() {
    let agent = Agent::start().await;
    agent.configure(Vec::new()).await;
    let id = open(&agent).await;
    let mut socket = agent.socket(&path(id), &attach(None)).await;
    socket.next_message().await;
    let (status, _, _) = agent
        .http(Method::DELETE, &format!("/api/v1/terminals/{id}"), &())
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert!(matches!(
        socket.next_message().await,
        ServerMessage::Exited { exit_code: 129 }
    ));
    within("the list is empty", async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
        while !agent
            .json::<Terminals>(Method::GET, "/api/v1/terminals", &())
            .await
            .is_empty()
        {
            ticks.tick().await;
        }
    })
    .await;
    // Whoever comes in its last moment may still see it end.
    within("it is not there any more", async {
        loop {
            let mut late = agent.socket(&path(id), &attach(None)).await;
            if let Some(ServerMessage::Failed { .. }) = late.message_or_end().await {
                return;
            }
        }
    })
    .await;
}

fn exec(argv: &[&str], tty: Option<Size>) -> ClientMessage {
    ClientMessage::Exec(ExecRequest {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        cwd: None,
        env: [("ASKED".to_owned(), "yes".to_owned())].into(),
        tty,
    })
}

#[tokio::test]
async fn exec_brings_output_input_and_the_exit_code() {
    let agent = Agent::start().await;
    agent.configure(Vec::new()).await;
    let mut socket = agent
        .socket(
            "/api/v1/exec",
            &exec(&["/bin/sh", "-c", "cat; echo $ASKED; exit 4"], None),
        )
        .await;
    socket.type_in("typed\n").await;
    socket.say(&ClientMessage::Eof {}).await;
    assert!(matches!(
        socket.next_message().await,
        ServerMessage::Exited { exit_code: 4 }
    ));
    assert_eq!(String::from_utf8_lossy(&socket.shown), "typed\nyes\n");

    let mut socket = agent
        .socket(
            "/api/v1/exec",
            &exec(&["/bin/sh", "-c", "tty; stty size; kill -9 $$"], Some(SIZE)),
        )
        .await;
    assert!(matches!(
        socket.next_message().await,
        ServerMessage::Exited { exit_code: 137 }
    ));
    let shown = String::from_utf8_lossy(&socket.shown).into_owned();
    assert!(
        shown.contains("/dev/pts/") && shown.contains("24 80"),
        "{shown}"
    );

    let mut socket = agent
        .socket("/api/v1/exec", &exec(&["no-such-tool"], None))
        .await;
    let answer = socket.next_message().await;
    assert!(
        matches!(&answer, ServerMessage::Failed { failure } if failure.code == FailureCode::ToolMissing),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_process_dies_with_its_connection_and_of_its_signal() {
    let agent = Agent::start().await;
    agent.configure(Vec::new()).await;
    // A shell that waits for its child may take the signal and go on waiting, where the child has just been forked.
    let script = "echo $$ > pid; echo up; exec sleep 1000";
    let mut socket = agent
        .socket("/api/v1/exec", &exec(&["/bin/sh", "-c", script], None))
        .await;
    socket.until_shown("up").await;
    let pid = std::fs::read_to_string(agent.path("pid")).unwrap();
    drop(socket);
    within("the process is gone", async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
        while std::path::Path::new(&format!("/proc/{}", pid.trim())).exists() {
            ticks.tick().await;
        }
    })
    .await;
    let mut socket = agent
        .socket("/api/v1/exec", &exec(&["/bin/sh", "-c", script], None))
        .await;
    socket.until_shown("up").await;
    socket
        .say(&ClientMessage::Signal {
            signal: "INT".to_owned(),
        })
        .await;
    assert!(matches!(
        socket.next_message().await,
        ServerMessage::Exited { exit_code: 130 }
    ));
}
