//! A task that comes too late is refused, and what a later one did stays.

use crate::harness::{GitServer, Runner, gitspace, spec, task};
use local_rpc::ClientError;
use wire::{
    gitspace::{Generation, ObservedState},
    task::TaskVerb,
};

/// Status, code and whether it says what to do.
fn refusal(error: &ClientError) -> (Option<u16>, &str, bool) {
    let problem = error.problem().expect("a refusal has a problem");
    (
        error.status().map(|status| status.as_u16()),
        problem.code.as_str(),
        problem.hint.is_some(),
    )
}

const SUPERSEDED: (Option<u16>, &str, bool) = (Some(412), "superseded", true);

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_an_older_generation_is_refused_and_changes_nothing() {
    let git = GitServer::start().await;
    let url = git.repository("app", &[]);
    let mut runner = Runner::start(&[git.port]).await;
    let id = gitspace();
    let start = |generation| task(id, generation, TaskVerb::Start { spec: spec(&url) });
    runner.done(&start(3)).await;
    let container = runner.container(id);
    for verb in [
        TaskVerb::Delete {},
        TaskVerb::Stop {},
        TaskVerb::Reset {},
        TaskVerb::Observe {},
        start(2).verb,
    ] {
        let kind = verb.kind();
        let error = runner.put(&task(id, 2, verb)).await.unwrap_err();
        assert_eq!(refusal(&error), SUPERSEDED, "{kind:?}: {error:?}");
    }

    // Also by a runner that was killed, and after a later task that was taken and cancelled.
    runner.kill_and_start().await;
    let error = runner.put(&task(id, 2, TaskVerb::Delete {})).await;
    assert_eq!(refusal(&error.unwrap_err()), SUPERSEDED);
    assert_eq!(runner.container(id), container);
    let running = runner.exec(id, "true");
    assert!(running.status.success(), "{running:?}");

    // The same generation again is another attempt, and no older one.
    let observed = runner.done(&start(3)).await;
    assert_eq!(observed.generation, Generation(3));

    // What was deleted is not brought back.
    let observed = runner.done(&task(id, 5, TaskVerb::Delete {})).await;
    assert_eq!(observed.state, ObservedState::Absent);
    let error = runner.put(&start(4)).await.unwrap_err();
    assert_eq!(refusal(&error), SUPERSEDED);
    runner.kill_and_start().await;
    let error = runner.put(&start(4)).await.unwrap_err();
    assert_eq!(refusal(&error), SUPERSEDED);
    let left = runner.listed(&["ps", "-a"], &format!("gitspaces.gitspace={id}"));
    assert!(left.is_empty(), "{left:?}");
    runner.done(&start(6)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_end_was_lost_is_not_carried_out_after_a_later_one() {
    let git = GitServer::start().await;
    let url = git.repository("app", &[]);
    let mut runner = Runner::start(&[git.port]).await;
    let id = gitspace();
    let start = task(id, 1, TaskVerb::Start { spec: spec(&url) });
    runner.done(&start).await;
    runner.done(&task(id, 2, TaskVerb::Stop {})).await;
    // As a full disk leaves its journal: taken, and no word of its end.
    let journal = runner.dir.join(format!("state/tasks/{}.jsonl", start.id));
    let whole = std::fs::read_to_string(&journal).unwrap();
    let first = whole.lines().next().unwrap();
    runner.kill();
    std::fs::write(&journal, format!("{first}\n")).unwrap();
    runner.start_again().await;
    let (_, outcome, observed) = runner.finish(&start).await;
    let wire::task::TaskOutcome::Failed { failure } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(failure.code, wire::failure::FailureCode::Superseded);
    assert!(failure.hint.is_some(), "{failure:?}");
    assert_eq!(observed.state, ObservedState::Stopped);
}
