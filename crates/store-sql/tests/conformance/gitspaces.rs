//! Gitspaces with their tasks, timelines and logs, and orders of removal.

use super::{NOW, after, conflict, gitspace, id};
use std::slice;
use store::{
    Cursor, GitspaceCommit, GitspaceFilter, GitspaceRecord, NewLogEntry, NewTimelineEvent,
    PageRequest, RemovalRecord, Store, StoreError, TaskRecord, TaskState,
};
use wire::{
    api::TimelineKind,
    failure::{Failure, FailureCode},
    gitspace::{Generation, GitspaceState, Observed, ObservedState},
    ids::GitspaceUuid,
    task::{LogStream, Phase, TaskKind},
};

fn event(message: &str) -> NewTimelineEvent {
    NewTimelineEvent {
        at: NOW,
        kind: TimelineKind::PhaseFailed,
        message: message.to_owned(),
        phase: Some(Phase::Clone),
        duration_ms: Some(7),
        failure: Some(Failure::new(FailureCode::GitFailed, "no").hint("yes")),
        generation: Generation(1),
        task: Some(id(0x50)),
        trace: id(9),
        state: GitspaceState::Starting,
    }
}

fn log(text: &str) -> NewLogEntry {
    NewLogEntry {
        at: NOW,
        phase: Phase::Clone,
        stream: LogStream::Stderr,
        text: text.to_owned(),
    }
}

fn making(gitspace: GitspaceRecord, timeline: Vec<NewTimelineEvent>) -> GitspaceCommit {
    GitspaceCommit {
        made: true,
        gitspace,
        tasks: Vec::new(),
        timeline,
        log: Vec::new(),
    }
}

/// One alone. Answers with the record's version after it.
async fn write(store: &dyn Store, commit: &GitspaceCommit) -> Result<u64, StoreError> {
    let [result] = store
        .commit(slice::from_ref(commit))
        .await?
        .try_into()
        .expect("an answer for each");
    result.map(|()| commit.gitspace.version + u64::from(!commit.made))
}

pub(super) async fn gitspaces(store: &dyn Store) {
    let made = gitspace(0x100, 1, "app");
    write(store, &making(made.clone(), vec![event("made")]))
        .await
        .unwrap();
    assert_eq!(store.gitspace(made.id).await.unwrap(), Some(made.clone()));
    assert_eq!(
        store.gitspace_by_slug(&made.slug).await.unwrap(),
        Some(made.clone())
    );
    let by_name = async |owner| store.gitspace_by_name(owner, &made.name).await.unwrap();
    assert_eq!(by_name(made.owner).await, Some(made.clone()));
    assert_eq!(by_name(id(2)).await, None);
    assert_eq!(
        conflict(write(store, &making(gitspace(0x101, 1, "app"), Vec::new())).await),
        "gitspace name"
    );
    let mut same_slug = gitspace(0x101, 2, "app");
    same_slug.slug = made.slug.clone();
    assert_eq!(
        conflict(write(store, &making(same_slug, Vec::new())).await),
        "slug"
    );
    let bobs = gitspace(0x102, 2, "app");
    write(store, &making(bobs.clone(), Vec::new()))
        .await
        .unwrap();

    let all = GitspaceFilter::default();
    let of_bob = GitspaceFilter { owner: Some(id(2)) };
    let page = PageRequest::first(1);
    assert_eq!(
        store.gitspaces(all, page).await.unwrap(),
        slice::from_ref(&made)
    );
    let next = PageRequest {
        after: Some(Cursor::new(made.created, made.id)),
        limit: 9,
    };
    assert_eq!(
        store.gitspaces(all, next).await.unwrap(),
        slice::from_ref(&bobs)
    );
    assert_eq!(
        store.gitspaces(of_bob, page).await.unwrap(),
        slice::from_ref(&bobs)
    );
    assert_eq!(store.live_gitspaces().await.unwrap().len(), 2);

    let mut gone = bobs.clone();
    gone.deleted = Some(after(1));
    let commit = GitspaceCommit {
        made: false,
        gitspace: gone,
        tasks: Vec::new(),
        timeline: Vec::new(),
        log: Vec::new(),
    };
    assert_eq!(write(store, &commit).await.unwrap(), 1);
    assert_eq!(store.gitspace_by_slug(&bobs.slug).await.unwrap(), None);
    assert!(
        store
            .gitspace(bobs.id)
            .await
            .unwrap()
            .unwrap()
            .deleted
            .is_some()
    );
    // Its name is free, its slug is not.
    let mut again = gitspace(0x103, 2, "app");
    again.slug = bobs.slug;
    assert_eq!(
        conflict(write(store, &making(again, Vec::new())).await),
        "slug"
    );
    write(store, &making(gitspace(0x103, 2, "app"), Vec::new()))
        .await
        .unwrap();
}

pub(super) async fn tasks_and_entries(store: &dyn Store) {
    let gitspace_id: GitspaceUuid = id(0x100);
    let mut record = store.gitspace(gitspace_id).await.unwrap().unwrap();
    let mut task = TaskRecord {
        id: id(0x50),
        gitspace: gitspace_id,
        delegate: id(0x10),
        kind: TaskKind::Start,
        generation: Generation(1),
        attempt: 1,
        deadline: after(60),
        trace: id(9),
        state: TaskState::Assigned,
        stored_seq: 0,
        created: NOW,
        finished: None,
    };
    record.delegate = Some(id(0x10));
    record.task = Some(task.id);
    record.phase = Some(Phase::Clone);
    record.exits = vec![NOW];
    record.retry_at = Some(after(9));
    record.error = Some(Failure::new(FailureCode::DiskFull, "full"));
    record.waiting = Some(Failure::new(FailureCode::NoCapacity, "none"));
    record.observed = Some(Observed {
        gitspace: gitspace_id,
        state: ObservedState::Running,
        generation: Generation(1),
        revision: 5,
        at: NOW,
        failure: None,
        task: None,
        dev_container: None,
    });
    let mut commit = GitspaceCommit {
        made: false,
        gitspace: record.clone(),
        tasks: vec![task.clone()],
        timeline: vec![event("one"), event("two")],
        log: vec![log("a\n"), log("b\n")],
    };
    record.version = write(store, &commit).await.unwrap();
    assert_eq!(
        store.gitspace(gitspace_id).await.unwrap(),
        Some(record.clone())
    );
    assert_eq!(store.open_tasks().await.unwrap(), [task.clone()]);

    // The same again: the record changed since, so nothing of it is written.
    assert_eq!(conflict(write(store, &commit).await), "gitspace");
    let timeline = store.timeline(gitspace_id, 0, 100).await.unwrap();
    let told: Vec<_> = timeline
        .iter()
        .map(|event| (event.id, event.message.as_str()))
        .collect();
    assert_eq!(told, [(1, "made"), (2, "one"), (3, "two")]);
    let wanted = event("one");
    assert_eq!(
        (timeline[1].failure.clone(), timeline[1].duration_ms),
        (wanted.failure, wanted.duration_ms)
    );
    assert_eq!(
        (timeline[1].at, timeline[1].task, timeline[1].state),
        (NOW, wanted.task, wanted.state)
    );
    assert_eq!(store.timeline(gitspace_id, 2, 100).await.unwrap().len(), 1);
    assert_eq!(store.timeline(gitspace_id, 0, 1).await.unwrap()[0].id, 1);
    let entries = store.log(gitspace_id, 1, 10).await.unwrap();
    assert_eq!((entries[0].id, entries[0].text.as_str()), (2, "b\n"));

    // Only one task of a gitspace is open.
    let second = TaskRecord {
        id: id(0x51),
        ..task.clone()
    };
    commit.gitspace = record.clone();
    commit.timeline = vec![event("lost")];
    commit.tasks = vec![second.clone()];
    assert_eq!(conflict(write(store, &commit).await), "task");
    assert_eq!(
        store.timeline(gitspace_id, 0, 100).await.unwrap().len(),
        3,
        "all or nothing"
    );

    task.state = TaskState::Finished;
    task.finished = Some(after(2));
    task.stored_seq = 8;
    commit.tasks = vec![task.clone()];
    record.version = write(store, &commit).await.unwrap();
    assert_eq!(store.task(task.id).await.unwrap(), Some(task));
    assert!(store.open_tasks().await.unwrap().is_empty());

    // The oldest entries make room; ids go on.
    let many = store::MAX_LOG_ENTRIES as usize;
    let full = GitspaceCommit {
        made: false,
        gitspace: record.clone(),
        tasks: Vec::new(),
        timeline: Vec::new(),
        log: vec![log("x"); many],
    };
    write(store, &full).await.unwrap();
    let first = store.log(gitspace_id, 0, 1).await.unwrap();
    assert_eq!(first[0].id, 5, "four were dropped");
    let last = store
        .log(gitspace_id, u64::from(store::MAX_LOG_ENTRIES), 10)
        .await
        .unwrap();
    assert_eq!(last.len(), 4);
}

/// Many in one transaction: one that is refused takes nothing of the others with it, and leaves nothing of itself.
pub(super) async fn commits_together(store: &dyn Store) {
    let of = |record: &GitspaceRecord, said: &str| GitspaceCommit {
        made: false,
        gitspace: record.clone(),
        tasks: Vec::new(),
        timeline: vec![event(said)],
        log: vec![log("line\n")],
    };
    let first = gitspace(0x200, 1, "first");
    let second = gitspace(0x201, 1, "second");
    let taken = gitspace(0x202, 1, "first");
    let results = store
        .commit(&[
            making(first.clone(), vec![event("made")]),
            making(taken.clone(), vec![event("made")]),
            making(second.clone(), vec![event("made")]),
        ])
        .await
        .unwrap();
    assert!(matches!(
        results.as_slice(),
        [
            Ok(()),
            Err(StoreError::Conflict {
                what: "gitspace name"
            }),
            Ok(())
        ]
    ));
    assert_eq!(store.gitspace(taken.id).await.unwrap(), None);

    let mut stale = first.clone();
    stale.version = 7;
    let unplaced = TaskRecord {
        id: id(0x70),
        gitspace: second.id,
        delegate: id(0xdead),
        kind: TaskKind::Start,
        generation: Generation(1),
        attempt: 1,
        deadline: after(60),
        trace: id(9),
        state: TaskState::Assigned,
        stored_seq: 0,
        created: NOW,
        finished: None,
    };
    let mut half = of(&second, "half");
    half.tasks = vec![unplaced];
    let third = gitspace(0x203, 1, "third");
    let results = store
        .commit(&[
            of(&stale, "stale"),
            half,
            making(third.clone(), Vec::new()),
            of(&first, "good"),
        ])
        .await
        .unwrap();
    assert!(
        matches!(
            results.as_slice(),
            [
                Err(StoreError::Conflict { what: "gitspace" }),
                Err(StoreError::NotFound { what: "task" }),
                Ok(()),
                Ok(())
            ]
        ),
        "{results:?}"
    );
    let version = async |id| store.gitspace(id).await.unwrap().unwrap().version;
    assert_eq!(version(first.id).await, 1);
    assert_eq!(version(second.id).await, 0, "its first part is taken back");
    assert_eq!(store.timeline(second.id, 0, 9).await.unwrap().len(), 1);
    assert_eq!(store.timeline(first.id, 0, 9).await.unwrap().len(), 2);
    assert_eq!(store.gitspace(third.id).await.unwrap(), Some(third));

    // The later of two rests on the earlier.
    let mut once = first.clone();
    once.version = 1;
    let mut twice = once.clone();
    twice.version = 2;
    let results = store
        .commit(&[of(&once, "once"), of(&twice, "twice"), of(&once, "late")])
        .await
        .unwrap();
    assert!(
        matches!(
            results.as_slice(),
            [
                Ok(()),
                Ok(()),
                Err(StoreError::Conflict { what: "gitspace" })
            ]
        ),
        "{results:?}"
    );
    let said: Vec<_> = store.timeline(first.id, 2, 9).await.unwrap();
    let said: Vec<_> = said
        .iter()
        .map(|event| (event.id, &*event.message))
        .collect();
    assert_eq!(said, [(3, "once"), (4, "twice")]);
}

/// More than one statement takes, with timelines and logs of different lengths.
pub(super) async fn many_commits_together(store: &dyn Store) {
    let records: Vec<_> = (0..100)
        .map(|number| gitspace(0x300 + number, 1, &format!("many-{number}")))
        .collect();
    let made: Vec<_> = records
        .iter()
        .map(|record| making(record.clone(), vec![event("made")]))
        .collect();
    assert!(store.commit(&made).await.unwrap().iter().all(Result::is_ok));
    let changed: Vec<_> = (0_usize..)
        .zip(&records)
        .map(|(number, record)| {
            let mut record = record.clone();
            record.generation = Generation(u64::try_from(number).unwrap() + 2);
            GitspaceCommit {
                made: false,
                gitspace: record,
                tasks: Vec::new(),
                timeline: (0..number % 3)
                    .map(|n| event(&format!("event {n}")))
                    .collect(),
                log: (0..number % 5)
                    .map(|n| log(&format!("{number}/{n}\n")))
                    .collect(),
            }
        })
        .collect();
    assert!(
        store
            .commit(&changed)
            .await
            .unwrap()
            .iter()
            .all(Result::is_ok)
    );
    for (number, record) in records.iter().enumerate() {
        let found = store.gitspace(record.id).await.unwrap().unwrap();
        assert_eq!(found.generation.0, u64::try_from(number).unwrap() + 2);
        assert_eq!(found.version, 1);
        let events = store.timeline(record.id, 1, 9).await.unwrap();
        let events: Vec<_> = events
            .iter()
            .map(|event| (event.id, &*event.message))
            .collect();
        let expected = [(2, "event 0"), (3, "event 1")];
        assert_eq!(events, expected[..number % 3]);
        let entries = store.log(record.id, 0, 9).await.unwrap();
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| (entry.id, entry.text.clone()))
            .collect();
        let expected: Vec<_> = (0..number % 5)
            .map(|n| (u64::try_from(n).unwrap() + 1, format!("{number}/{n}\n")))
            .collect();
        assert_eq!(entries, expected);
    }
}

pub(super) async fn removals(store: &dyn Store) {
    let order = RemovalRecord {
        gitspace: id(0x999),
        delegate: id(0x10),
        user: id(1),
        created: NOW,
    };
    assert_eq!(store.removal(id(0x10), id(0x999)).await.unwrap(), None);
    store.order_removal(&order).await.unwrap();
    let again = RemovalRecord {
        created: after(5),
        ..order
    };
    store.order_removal(&again).await.unwrap();
    assert_eq!(
        store.removal(id(0x10), id(0x999)).await.unwrap(),
        Some(order)
    );
    assert_eq!(store.removal(id(0x10), id(0x998)).await.unwrap(), None);
    let nobody = RemovalRecord {
        delegate: id(0xdead),
        ..order
    };
    assert!(matches!(
        store.order_removal(&nobody).await,
        Err(StoreError::NotFound { .. })
    ));
}
