//! Limits on memory, CPU and processes: they follow the machine, and what dies of them is told.

use crate::harness::{GitServer, LIMIT, Runner, gitspace, spec, task};
use futures_util::{Stream, StreamExt as _};
use local_rpc::ClientError;
use std::time::Duration;
use wire::{
    failure::{Failure, FailureCode},
    gitspace::{GitspaceSpec, Observed, ObservedState, Resources},
    ids::GitspaceUuid,
    task::TaskVerb,
};

const MIB: u64 = 1 << 20;
/// Within which an end has to be told.
const TOLD: Duration = Duration::from_secs(2);

fn start(id: GitspaceUuid, generation: u64, spec: &GitspaceSpec) -> wire::task::Task {
    task(id, generation, TaskVerb::Start { spec: spec.clone() })
}

/// What the kernel holds the container to, as seen from inside; the file's name depends on the host's cgroup version.
fn memory_limit(runner: &Runner, id: GitspaceUuid) -> u64 {
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    let output = runner.exec(id, script);
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn limits(runner: &Runner, id: GitspaceUuid) -> String {
    let format = "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}}";
    runner.docker(&["inspect", "-f", format, &runner.container(id)])
}

#[tokio::test(flavor = "multi_thread")]
async fn another_machine_holds_at_the_next_start_and_nothing_is_made_again() {
    let git = GitServer::start().await;
    let url = git.repository(
        "app",
        &[(
            ".devcontainer.json",
            r#"{"onCreateCommand": "echo created >> hooks", "postStartCommand": "echo started >> hooks"}"#,
        )],
    );
    let runner = Runner::start(&[git.port]).await;
    let id = gitspace();
    let mut spec = spec(&url);
    runner.done(&start(id, 1, &spec)).await;
    let container = runner.container(id);
    runner.done(&task(id, 2, TaskVerb::Stop {})).await;

    spec.resources = Resources {
        cpu_millis: 500,
        memory_bytes: 192 * MIB,
        pids: 100,
    };
    runner.done(&start(id, 3, &spec)).await;
    assert_eq!(limits(&runner, id), "500000000 201326592 201326592 100");
    assert_eq!(memory_limit(&runner, id), 192 * MIB);

    // And where it runs already.
    spec.resources = Resources {
        cpu_millis: 1500,
        memory_bytes: 768 * MIB,
        pids: 300,
    };
    runner.done(&start(id, 4, &spec)).await;
    assert_eq!(limits(&runner, id), "1500000000 805306368 805306368 300");
    assert_eq!(memory_limit(&runner, id), 768 * MIB);
    assert_eq!(runner.container(id), container, "the same container");
    let hooks = runner.exec(id, "cat /workspaces/app/hooks");
    assert_eq!(
        String::from_utf8_lossy(&hooks.stdout),
        "created\nstarted\nstarted\n"
    );

    // A limit that Docker does not take is an error, and not the old limit.
    spec.resources.memory_bytes = MIB;
    let (_, failure, observed) = runner.failed(&start(id, 5, &spec)).await;
    assert_eq!(failure.code, FailureCode::DockerFailed, "{failure:?}");
    assert!(
        failure.message.contains("limits") && failure.detail.is_some() && failure.hint.is_some(),
        "{failure:?}"
    );
    assert_eq!(observed.state, ObservedState::Running);
}

async fn running(runner: &Runner, url: &str) -> (GitspaceUuid, GitspaceSpec) {
    let id = gitspace();
    let mut spec = spec(url);
    spec.resources.memory_bytes = 128 * MIB;
    runner.done(&start(id, 1, &spec)).await;
    (id, spec)
}

/// Asks for twice what there is, and touches all of it.
const HOG: &str = "python3 -c 'bytearray(256 << 20)'";

/// The failure of a gitspace in this state. The kernel's kill can be told before the end that follows from it.
async fn told(
    watch: &mut (impl Stream<Item = Result<Observed, ClientError>> + Unpin),
    state: ObservedState,
) -> Failure {
    let seen = tokio::time::timeout(TOLD, async {
        loop {
            let observed = watch.next().await.unwrap().unwrap();
            if observed.state == state
                && let Some(failure) = observed.failure
            {
                return failure;
            }
        }
    });
    seen.await.expect("told within two seconds")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_first_process_is_killed_for_memory_is_told_with_that_cause() {
    let git = GitServer::start().await;
    let url = git.repository("app", &[]);
    let runner = Runner::start(&[git.port]).await;
    let (id, spec) = running(&runner, &url).await;
    // The kernel takes the process that it is told to take first: here the one with which the container ends.
    let pid = runner.docker(&["inspect", "-f", "{{.State.Pid}}", &runner.container(id)]);
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), "1000").unwrap();
    let mut watch = runner
        .client
        .stream_ndjson::<Observed>("/v1/watch")
        .await
        .unwrap();
    let first = tokio::time::timeout(LIMIT, watch.next()).await.unwrap();
    assert_eq!(first.unwrap().unwrap().failure, None);
    runner.exec(id, HOG);
    let failure = told(&mut watch, ObservedState::Stopped).await;
    assert_eq!(failure.code, FailureCode::OutOfMemory, "{failure:?}");
    assert!(
        failure.message.contains("memory") && failure.hint.is_some(),
        "{failure:?}"
    );
    let observed = runner.done(&start(id, 2, &spec)).await;
    assert_eq!(
        (observed.state, observed.failure),
        (ObservedState::Running, None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_for_memory_is_told_of_a_gitspace_that_runs_on() {
    let git = GitServer::start().await;
    let url = git.repository("app", &[]);
    let runner = Runner::start(&[git.port]).await;
    let (id, spec) = running(&runner, &url).await;
    let mut watch = runner
        .client
        .stream_ndjson::<Observed>("/v1/watch")
        .await
        .unwrap();
    let killed = runner.exec(id, HOG);
    assert_eq!(killed.status.code(), Some(137), "{killed:?}");
    let failure = told(&mut watch, ObservedState::Running).await;
    assert_eq!(failure.code, FailureCode::OutOfMemory, "{failure:?}");
    assert!(failure.message.contains("a process"), "{failure:?}");

    // Until its next start.
    let observed = runner.done(&start(id, 2, &spec)).await;
    assert_eq!(observed.failure, None);
}
