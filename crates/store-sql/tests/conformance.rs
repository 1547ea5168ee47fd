//! What every store has to do, whatever database is behind it: `suite` is given a store that is empty.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by stopping"
)]

use camino::Utf8PathBuf;
use jiff::Timestamp;
use newtype_uuid::{GenericUuid as _, TypedUuid, TypedUuidKind};
use std::{slice, sync::Arc, time::Duration};
use store::{
    AccessTokenRecord, Claimed, CodeRecord, Cursor, DelegateRecord, Enrolment, EnrolmentDenied,
    GatewayRecord, GitCredentialRecord, GitspaceCommit, GitspaceFilter, GitspaceRecord,
    IdempotencyClaim, InfraProviderRecord, JoinTokenRecord, MachineRecord, MachineSnapshot,
    NewLogEntry, NewTimelineEvent, PageRequest, RemovalRecord, SessionRecord, Store, StoreError,
    TaskRecord, TaskState, UserRecord,
};
use store_sql::SqlStore;
use wire::{
    api::{InfraProviderKind, Role, TimelineKind},
    control::{Disconnect, DisconnectCode, Epoch},
    failure::{Failure, FailureCode},
    gateway::{Revocation, RevokedSubject},
    gitspace::{
        DesiredState, Generation, GitScheme, GitspaceState, Observed, ObservedState, RepoSpec,
        Resources,
    },
    ids::{GitspaceUuid, UserUuid},
    task::{LogStream, Phase, TaskKind},
};

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 123_456_000);
const RESOURCES: Resources = Resources {
    cpu_millis: 1000,
    memory_bytes: 1 << 30,
    pids: 512,
};

fn id<K: TypedUuidKind>(number: u128) -> TypedUuid<K> {
    TypedUuid::from_untyped_uuid(uuid::Uuid::from_u128(number))
}

fn user(number: u128, name: &str) -> UserRecord {
    UserRecord {
        id: id(number),
        name: name.to_owned(),
        email: None,
        role: Role::Developer,
        disabled: false,
        created: NOW,
    }
}

fn gitspace(number: u128, owner: u128, name: &str) -> GitspaceRecord {
    GitspaceRecord {
        id: id(number),
        owner: id(owner),
        owner_name: if owner == 1 { "ann" } else { "bob" }.to_owned(),
        name: name.parse().unwrap(),
        slug: format!("{name}-{number:06}").parse().unwrap(),
        repo: RepoSpec {
            url: "https://example.com/app".parse().unwrap(),
            reference: Some("main".parse().unwrap()),
        },
        machine: MachineSnapshot {
            name: "small".to_owned(),
            resources: RESOURCES,
            infra_provider: id(1),
        },
        created: NOW,
        version: 0,
        desired: DesiredState::Running,
        generation: Generation(1),
        trace: id(9),
        observed: None,
        delegate: None,
        task: None,
        phase: None,
        attempts: 0,
        retry_at: None,
        exits: Vec::new(),
        error: None,
        waiting: None,
        updated: NOW,
        deleted: None,
    }
}

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

fn delegate(number: u128, name: &str, key: u8) -> DelegateRecord {
    DelegateRecord {
        id: id(number),
        name: name.to_owned(),
        tags: vec!["gpu".to_owned()],
        public_key: [key; 32],
        revoked: false,
        version: None,
        inventory: None,
        last_seen: None,
        last_disconnect: None,
        epoch: Epoch(0),
        created: NOW,
    }
}

fn after(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

fn conflict<T: std::fmt::Debug>(result: Result<T, StoreError>) -> &'static str {
    match result {
        Err(StoreError::Conflict { what }) => what,
        other => panic!("no conflict: {other:?}"),
    }
}

async fn suite(store: Arc<dyn Store>) {
    store.ping().await.unwrap();
    users(&*store).await;
    access(&*store).await;
    catalog(&*store).await;
    delegates(&*store).await;
    gitspaces(&*store).await;
    tasks_and_entries(&*store).await;
    commits_together(&*store).await;
    removals(&*store).await;
    codes(store.clone()).await;
    expiry(&*store).await;
}

async fn users(store: &dyn Store) {
    let (ann, bob) = (user(1, "ann"), user(2, "bob"));
    store.create_user(&ann).await.unwrap();
    store.create_user(&bob).await.unwrap();
    assert_eq!(
        conflict(store.create_user(&user(3, "ann")).await),
        "user name"
    );
    assert_eq!(store.user(ann.id).await.unwrap(), Some(ann.clone()));
    assert_eq!(store.user_by_name("bob").await.unwrap(), Some(bob.clone()));
    assert_eq!(store.user_by_name("' OR 1=1 --").await.unwrap(), None);
    assert_eq!(store.count_users().await.unwrap(), 2);
    let page = store.users(PageRequest::first(1)).await.unwrap();
    assert_eq!(page, slice::from_ref(&ann));
    let rest = PageRequest {
        after: Some(Cursor::new(ann.created, ann.id)),
        limit: 10,
    };
    assert_eq!(store.users(rest).await.unwrap(), slice::from_ref(&bob));
    let changed = store
        .update_user(bob.id, Some(Role::Admin), None)
        .await
        .unwrap();
    assert_eq!((changed.role, changed.disabled), (Role::Admin, false));
    let changed = store.update_user(bob.id, None, Some(true)).await.unwrap();
    assert_eq!((changed.role, changed.disabled), (Role::Admin, true));
    let nobody: UserUuid = id(77);
    assert!(matches!(
        store.update_user(nobody, None, None).await,
        Err(StoreError::NotFound { .. })
    ));
}

async fn access(store: &dyn Store) {
    let ann: UserUuid = id(1);
    let token = AccessTokenRecord {
        id: id(0x20),
        user: ann,
        name: "laptop".to_owned(),
        hash: [7; 32],
        exp: after(60),
        revoked: false,
        last_used: None,
        created: NOW,
    };
    store.create_access_token(&token).await.unwrap();
    let (found, owner) = store
        .access_token_by_hash(&[7; 32])
        .await
        .unwrap()
        .expect("found");
    assert_eq!((found, owner.name.as_str()), (token.clone(), "ann"));
    assert_eq!(store.access_token_by_hash(&[8; 32]).await.unwrap(), None);
    store.touch_access_token(token.id, after(5)).await.unwrap();
    store.touch_access_token(token.id, after(1)).await.unwrap();
    assert_eq!(
        store.access_tokens(ann).await.unwrap()[0].last_used,
        Some(after(5))
    );
    assert!(
        !store
            .revoke_access_token(token.id, Some(id(2)))
            .await
            .unwrap()
    );
    assert!(!store.access_tokens(ann).await.unwrap()[0].revoked);
    assert!(
        store
            .revoke_access_token(token.id, Some(ann))
            .await
            .unwrap()
    );
    assert!(store.access_tokens(ann).await.unwrap()[0].revoked);

    let session = SessionRecord {
        hash: [1; 32],
        user: ann,
        csrf: "csrf".to_owned(),
        exp: after(60),
        created: NOW,
    };
    store.create_session(&session).await.unwrap();
    let (found, owner) = store.session_by_hash(&[1; 32]).await.unwrap().unwrap();
    assert_eq!((found, owner.id), (session, ann));
    store.delete_session(&[1; 32]).await.unwrap();
    assert_eq!(store.session_by_hash(&[1; 32]).await.unwrap(), None);

    let mut claim = IdempotencyClaim {
        user: ann,
        key: "k".to_owned(),
        request: [5; 32],
        now: NOW,
        abandoned_before: Timestamp::UNIX_EPOCH,
        exp: after(60),
    };
    assert_eq!(
        store.claim_idempotency(&claim).await.unwrap(),
        Claimed::Fresh
    );
    let in_progress = Claimed::InProgress { request: [5; 32] };
    assert_eq!(store.claim_idempotency(&claim).await.unwrap(), in_progress);
    store.release_idempotency(ann, "k").await.unwrap();
    assert_eq!(
        store.claim_idempotency(&claim).await.unwrap(),
        Claimed::Fresh
    );
    // The process that carried it out died.
    claim.abandoned_before = after(1);
    assert_eq!(
        store.claim_idempotency(&claim).await.unwrap(),
        Claimed::Fresh
    );
    store
        .complete_idempotency(ann, "k", 201, b"body")
        .await
        .unwrap();
    store.release_idempotency(ann, "k").await.unwrap();
    let done = Claimed::Done {
        request: [5; 32],
        status: 201,
        body: b"body".to_vec(),
    };
    assert_eq!(store.claim_idempotency(&claim).await.unwrap(), done);
    claim.now = after(60);
    assert_eq!(
        store.claim_idempotency(&claim).await.unwrap(),
        Claimed::Fresh
    );

    let mut credential = GitCredentialRecord {
        id: id(0x30),
        user: ann,
        scheme: GitScheme::Https,
        host: "example.com".to_owned(),
        username: "ann".to_owned(),
        sealed: vec![1, 2],
        created: NOW,
    };
    assert_eq!(
        store.put_git_credential(&credential).await.unwrap(),
        credential
    );
    credential.sealed = vec![3];
    let replaced = GitCredentialRecord {
        id: id(0x31),
        ..credential.clone()
    };
    assert_eq!(
        store.put_git_credential(&replaced).await.unwrap(),
        credential
    );
    let plain = GitCredentialRecord {
        id: id(0x32),
        scheme: GitScheme::Http,
        ..credential.clone()
    };
    assert_eq!(store.put_git_credential(&plain).await.unwrap(), plain);
    assert_eq!(
        store.git_credentials(ann).await.unwrap(),
        [plain, credential],
        "one for each scheme of a host"
    );
    assert!(!store.delete_git_credential(id(2), id(0x30)).await.unwrap());
    assert!(store.delete_git_credential(ann, id(0x30)).await.unwrap());
}

async fn catalog(store: &dyn Store) {
    let provider = InfraProviderRecord {
        id: id(1),
        name: "host".to_owned(),
        kind: InfraProviderKind::Host,
        selectors: vec!["gpu".to_owned()],
        created: NOW,
    };
    store.create_infra_provider(&provider).await.unwrap();
    assert_eq!(
        store.infra_providers().await.unwrap(),
        slice::from_ref(&provider)
    );
    assert_eq!(
        store.infra_provider(provider.id).await.unwrap(),
        Some(provider.clone())
    );
    assert_eq!(store.default_machine().await.unwrap(), None);
    let mut small = MachineRecord {
        id: id(0x41),
        name: "small".to_owned(),
        infra_provider: provider.id,
        infra_provider_name: "host".to_owned(),
        resources: RESOURCES,
        is_default: true,
        created: NOW,
    };
    store.create_machine(&small).await.unwrap();
    let large = MachineRecord {
        id: id(0x42),
        name: "large".to_owned(),
        ..small.clone()
    };
    store.create_machine(&large).await.unwrap();
    assert_eq!(store.default_machine().await.unwrap(), Some(large.clone()));
    small.is_default = false;
    assert_eq!(store.machines().await.unwrap(), [large, small.clone()]);
    assert_eq!(conflict(store.create_machine(&small).await), "machine name");
    let homeless = MachineRecord {
        id: id(0x43),
        name: "x".to_owned(),
        infra_provider: id(99),
        ..small
    };
    assert!(matches!(
        store.create_machine(&homeless).await,
        Err(StoreError::NotFound {
            what: "infra provider"
        })
    ));

    let gateway = GatewayRecord {
        id: id(0x60),
        name: "gw".to_owned(),
        token_hash: [1; 32],
        created: NOW,
    };
    assert_eq!(store.put_gateway(&gateway).await.unwrap(), gateway);
    let renewed = GatewayRecord {
        id: id(0x61),
        token_hash: [2; 32],
        ..gateway.clone()
    };
    assert_eq!(store.put_gateway(&renewed).await.unwrap().id, gateway.id);
    assert_eq!(store.gateway_by_hash(&[1; 32]).await.unwrap(), None);
    assert!(store.gateway_by_hash(&[2; 32]).await.unwrap().is_some());
    assert_eq!(store.gateways().await.unwrap().len(), 1);

    assert_eq!(store.setting("key").await.unwrap(), None);
    assert_eq!(store.setting_or("key", b"one").await.unwrap(), b"one");
    assert_eq!(store.setting_or("key", b"two").await.unwrap(), b"one");
    store.put_setting("key", b"three").await.unwrap();
    assert_eq!(
        store.setting("key").await.unwrap().as_deref(),
        Some(&b"three"[..])
    );

    let mut revocation = Revocation {
        subject: RevokedSubject::User { user: id(1) },
        before: after(5),
    };
    store.revoke_grants(&revocation, after(30)).await.unwrap();
    let earlier = Revocation {
        before: after(1),
        ..revocation.clone()
    };
    store.revoke_grants(&earlier, after(30)).await.unwrap();
    assert_eq!(store.revocations(NOW).await.unwrap(), [revocation.clone()]);
    revocation.before = after(9);
    store.revoke_grants(&revocation, after(30)).await.unwrap();
    assert_eq!(store.revocations(NOW).await.unwrap(), [revocation]);
    assert!(store.revocations(after(30)).await.unwrap().is_empty());
}

async fn delegates(store: &dyn Store) {
    let token = JoinTokenRecord {
        id: id(0x70),
        comment: Some("rack 1".to_owned()),
        hash: [4; 32],
        uses_left: 2,
        exp: after(60),
        revoked: false,
        created: NOW,
    };
    store.create_join_token(&token).await.unwrap();
    let enrol = async |hash: u8, delegate: DelegateRecord, at| {
        store
            .enrol_delegate(&[hash; 32], &delegate, at)
            .await
            .unwrap()
    };
    let uses = async || store.join_tokens().await.unwrap()[0].uses_left;
    let one = delegate(0x10, "one", 1);
    let denied = Enrolment::Denied;
    assert_eq!(
        enrol(5, one.clone(), NOW).await,
        denied(EnrolmentDenied::UnknownToken)
    );
    assert_eq!(
        enrol(4, one.clone(), after(60)).await,
        denied(EnrolmentDenied::Expired)
    );
    assert_eq!(
        enrol(4, one.clone(), NOW).await,
        Enrolment::Enrolled(one.id)
    );
    assert_eq!(uses().await, 1);
    assert_eq!(store.delegate(one.id).await.unwrap(), Some(one.clone()));
    // Its answer got lost and it asks again.
    assert_eq!(
        enrol(4, delegate(0x11, "one", 1), NOW).await,
        Enrolment::Already(one.id)
    );
    assert_eq!(
        enrol(4, delegate(0x12, "one", 2), NOW).await,
        denied(EnrolmentDenied::NameTaken)
    );
    assert_eq!(
        enrol(4, delegate(0x13, "two", 1), NOW).await,
        denied(EnrolmentDenied::KeyTaken)
    );
    assert_eq!(uses().await, 1, "a denied enrolment uses nothing");

    assert_eq!(store.next_epoch(one.id).await.unwrap(), Epoch(1));
    assert_eq!(store.next_epoch(one.id).await.unwrap(), Epoch(2));
    let silence = Disconnect {
        code: DisconnectCode::Silence,
        reason: "nothing was heard".to_owned(),
    };
    store
        .delegate_disconnected(one.id, &silence, after(3))
        .await
        .unwrap();
    let known = store.delegate_by_name("one").await.unwrap().unwrap();
    assert_eq!(known.last_disconnect, Some(silence));
    assert_eq!((known.last_seen, known.epoch), (Some(after(3)), Epoch(2)));

    assert!(store.revoke_delegate(one.id).await.unwrap());
    assert!(matches!(
        store.next_epoch(one.id).await,
        Err(StoreError::NotFound { .. })
    ));
    assert_eq!(
        enrol(4, one.clone(), NOW).await,
        denied(EnrolmentDenied::KeyTaken),
        "a revoked key never comes back"
    );
    assert_eq!(
        enrol(4, delegate(0x14, "one", 9), NOW).await,
        Enrolment::Renewed(one.id)
    );
    assert_eq!(
        enrol(4, delegate(0x15, "three", 3), NOW).await,
        denied(EnrolmentDenied::UsedUp)
    );
    assert!(store.revoke_join_token(token.id).await.unwrap());
    assert_eq!(
        enrol(4, delegate(0x15, "three", 3), NOW).await,
        denied(EnrolmentDenied::Revoked)
    );
    assert_eq!(store.delegates().await.unwrap().len(), 1);
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

async fn gitspaces(store: &dyn Store) {
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

async fn tasks_and_entries(store: &dyn Store) {
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
async fn commits_together(store: &dyn Store) {
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
}

async fn removals(store: &dyn Store) {
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

async fn codes(store: Arc<dyn Store>) {
    let code = |hash: u8| CodeRecord {
        hash: [hash; 32],
        gitspace: id(0x100),
        port: Some(3000),
        user: id(1),
        return_to: "/x?y".to_owned(),
        exp: after(60),
        created: NOW,
    };
    for hash in 1..=4 {
        store.create_code(&code(hash)).await.unwrap();
    }
    let consume = async |hash: u8, gitspace: u128, port, at| {
        store
            .consume_code(&[hash; 32], id(gitspace), port, at)
            .await
            .unwrap()
    };
    assert_eq!(consume(1, 0x100, Some(3000), NOW).await, Some(code(1)));
    assert_eq!(consume(1, 0x100, Some(3000), NOW).await, None, "used");
    assert_eq!(consume(2, 0x100, None, NOW).await, None, "another origin");
    assert_eq!(consume(2, 0x100, Some(3000), NOW).await, None, "void");
    assert_eq!(
        consume(3, 0x100, Some(3000), after(60)).await,
        None,
        "expired"
    );
    let (hash, gitspace) = ([4; 32], id(0x100));
    let (one, other) = tokio::join!(
        store.consume_code(&hash, gitspace, Some(3000), NOW),
        store.consume_code(&hash, gitspace, Some(3000), NOW)
    );
    let taken = usize::from(one.unwrap().is_some()) + usize::from(other.unwrap().is_some());
    assert_eq!(taken, 1, "of two at once one gets it");
}

async fn expiry(store: &dyn Store) {
    let session = SessionRecord {
        hash: [2; 32],
        user: id(1),
        csrf: String::new(),
        exp: after(60),
        created: NOW,
    };
    store.create_session(&session).await.unwrap();
    store.drop_expired(after(59)).await.unwrap();
    assert!(store.session_by_hash(&[2; 32]).await.unwrap().is_some());
    assert!(store.drop_expired(after(60)).await.unwrap() > 0);
    assert!(store.session_by_hash(&[2; 32]).await.unwrap().is_none());
    assert_eq!(store.join_tokens().await.unwrap().len(), 1, "kept a month");
}

#[tokio::test]
async fn sqlite_does_what_every_store_has_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(directory.path().join("store.db")).unwrap();
    let store = SqlStore::open_sqlite(&path).await.unwrap();
    suite(Arc::new(store)).await;
}

#[tokio::test]
async fn what_was_stored_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(directory.path().join("store.db")).unwrap();
    let store = SqlStore::open_sqlite(&path).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    store.create_user(&user(1, "ann")).await.unwrap();
    // As after a kill: nothing is closed.
    let again = SqlStore::open_sqlite(&path).await.unwrap();
    let again: Arc<dyn Store> = Arc::new(again);
    assert_eq!(again.count_users().await.unwrap(), 1);
}
