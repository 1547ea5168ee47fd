//! What every store has to do, whatever database is behind it: `suite` is given a store that is empty.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by stopping"
)]

#[path = "conformance/gitspaces.rs"]
mod gitspaces;
#[path = "conformance/ports.rs"]
mod ports;
#[path = "conformance/ssh_keys.rs"]
mod ssh_keys;

use camino::Utf8PathBuf;
use jiff::Timestamp;
use newtype_uuid::{GenericUuid as _, TypedUuid, TypedUuidKind};
use std::{slice, sync::Arc, time::Duration};
use store::{
    AccessTokenRecord, Claimed, CodeRecord, Cursor, DelegateNote, DelegateRecord, DelegateSeen,
    Enrolment, EnrolmentDenied, GatewayRecord, GitCredentialRecord, GitspaceRecord,
    IdempotencyClaim, InfraProviderRecord, JoinTokenRecord, KeyProposed, MachineRecord,
    MachineSnapshot, PageRequest, SessionRecord, Store, StoreError, UserRecord,
};
use store_sql::SqlStore;
use wire::{
    api::{InfraProviderKind, Role},
    control::{Capacity, Disconnect, DisconnectCode, Epoch, Inventory},
    gateway::{Revocation, RevokedSubject},
    gitspace::{DesiredState, Generation, GitScheme, RepoSpec, Resources},
    ids::UserUuid,
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

fn inventory() -> Inventory {
    Inventory {
        hostname: "host".to_owned(),
        os: "Debian".to_owned(),
        kernel: "6".to_owned(),
        arch: "x86_64".to_owned(),
        cpus: 2,
        memory_bytes: 1 << 30,
        memory_available_bytes: 1 << 29,
        disk_bytes: 1 << 40,
        disk_available_bytes: 1 << 39,
        docker_version: None,
        capacity: Capacity {
            gitspaces: 4,
            cpu_millis: 2_000,
            memory_bytes: 1 << 30,
        },
    }
}

fn delegate(number: u128, name: &str, key: u8) -> DelegateRecord {
    DelegateRecord {
        id: id(number),
        name: name.to_owned(),
        tags: vec!["gpu".to_owned()],
        public_key: [key; 32],
        key_since: NOW,
        next_key: None,
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
    ssh_keys::ssh_keys(&*store).await;
    catalog(&*store).await;
    delegates(&*store).await;
    gitspaces::gitspaces(&*store).await;
    gitspaces::tasks_and_entries(&*store).await;
    gitspaces::commits_together(&*store).await;
    gitspaces::many_commits_together(&*store).await;
    ports::ports(&*store).await;
    gitspaces::removals(&*store).await;
    codes(store.clone()).await;
    expiry(&*store).await;
    delegate_keys(&*store).await;
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
    let taken = GatewayRecord {
        id: id(0x62),
        token_hash: [3; 32],
        ..gateway.clone()
    };
    assert!(matches!(
        store.create_gateway(&taken).await,
        Err(StoreError::Conflict {
            what: "gateway name"
        })
    ));
    let second = GatewayRecord {
        name: "gw-2".to_owned(),
        ..taken
    };
    store.create_gateway(&second).await.unwrap();
    assert_eq!(
        store.gateway_by_hash(&[3; 32]).await.unwrap(),
        Some(second.clone())
    );
    assert!(store.delete_gateway(second.id).await.unwrap());
    assert!(!store.delete_gateway(second.id).await.unwrap());
    assert_eq!(store.gateway_by_hash(&[3; 32]).await.unwrap(), None);

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
        delegate: None,
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

    let nobody = delegate(0x77, "nobody", 7).id;
    assert_eq!(
        store.next_epochs(&[one.id, nobody, one.id]).await.unwrap(),
        [Some(Epoch(1)), None, Some(Epoch(2))]
    );
    let silence = Disconnect {
        code: DisconnectCode::Silence,
        reason: "nothing was heard".to_owned(),
    };
    let notes = [
        DelegateNote::Seen {
            id: one.id,
            seen: Box::new(DelegateSeen {
                version: "2".to_owned(),
                tags: vec!["gpu".to_owned()],
                inventory: inventory(),
                at: after(2),
            }),
        },
        DelegateNote::Disconnected {
            id: one.id,
            disconnect: silence.clone(),
            at: after(3),
        },
    ];
    store.note_delegates(&notes).await.unwrap();
    let known = store.delegate_by_name("one").await.unwrap().unwrap();
    assert_eq!(known.last_disconnect, Some(silence));
    assert_eq!((known.last_seen, known.epoch), (Some(after(3)), Epoch(2)));
    assert_eq!(
        (known.version.as_deref(), &known.tags[..]),
        (Some("2"), &["gpu".to_owned()][..])
    );
    assert_eq!(known.inventory, Some(inventory()));

    assert!(store.revoke_delegate(one.id).await.unwrap());
    assert_eq!(store.next_epochs(&[one.id]).await.unwrap(), [None]);
    assert_eq!(
        enrol(4, delegate(0x14, "one", 9), NOW).await,
        denied(EnrolmentDenied::NotForReturn),
        "a token that makes delegates takes over none"
    );
    let for_return = JoinTokenRecord {
        id: id(0x72),
        delegate: Some(one.id),
        hash: [5; 32],
        uses_left: 1,
        ..token.clone()
    };
    store.create_join_token(&for_return).await.unwrap();
    assert_eq!(store.join_tokens().await.unwrap().len(), 2);
    assert_eq!(
        enrol(5, delegate(0x16, "four", 8), NOW).await,
        denied(EnrolmentDenied::OtherDelegate)
    );
    assert_eq!(
        enrol(5, one.clone(), NOW).await,
        denied(EnrolmentDenied::KeyTaken),
        "a revoked key never comes back"
    );
    assert_eq!(
        enrol(5, delegate(0x14, "one", 9), NOW).await,
        Enrolment::Renewed(one.id)
    );
    assert_eq!(
        enrol(4, delegate(0x17, "two", 7), NOW).await,
        Enrolment::Enrolled(id(0x17))
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
    assert_eq!(store.delegates().await.unwrap().len(), 2);
}

async fn delegate_keys(store: &dyn Store) {
    let token = JoinTokenRecord {
        id: id(0x71),
        comment: None,
        delegate: None,
        hash: [6; 32],
        uses_left: 9,
        exp: after(60),
        revoked: false,
        created: NOW,
    };
    store.create_join_token(&token).await.unwrap();
    let enrol = async |delegate: DelegateRecord, at| {
        store.enrol_delegate(&[6; 32], &delegate, at).await.unwrap()
    };
    let (turner, other) = (
        delegate(0x20, "turner", 0x20),
        delegate(0x21, "other", 0x21),
    );
    for delegate in [&turner, &other] {
        assert_eq!(
            enrol(delegate.clone(), NOW).await,
            Enrolment::Enrolled(delegate.id)
        );
    }
    let id = turner.id;
    let propose = async |current: u8, next: u8| {
        store
            .propose_key(id, &[current; 32], &[next; 32])
            .await
            .unwrap()
    };
    let keys = async || {
        let known = store.delegate(id).await.unwrap().unwrap();
        let next = known.next_key.map(|key| key[0]);
        (known.public_key[0], known.key_since, next)
    };
    assert_eq!(propose(0x99, 0x30).await, KeyProposed::NotInForce);
    for known in [0x20, 0x21] {
        assert_eq!(propose(0x20, known).await, KeyProposed::Taken, "{known}");
    }
    assert!(!store.use_key(id, &[0x30; 32], NOW).await.unwrap());
    assert_eq!(propose(0x20, 0x29).await, KeyProposed::Accepted);
    // Its maker lost it.
    for _ in 0..2 {
        assert_eq!(propose(0x20, 0x30).await, KeyProposed::Accepted);
    }
    assert_eq!(keys().await, (0x20, NOW, Some(0x30)));
    assert_eq!(
        store
            .propose_key(other.id, &[0x21; 32], &[0x30; 32])
            .await
            .unwrap(),
        KeyProposed::Taken,
        "it is to be another's"
    );
    assert!(!store.use_key(id, &[0x29; 32], NOW).await.unwrap());
    assert!(store.use_key(id, &[0x30; 32], after(5)).await.unwrap());
    assert!(!store.use_key(id, &[0x30; 32], after(6)).await.unwrap());
    assert_eq!(keys().await, (0x30, after(5), None));
    assert_eq!(propose(0x20, 0x31).await, KeyProposed::NotInForce);
    assert_eq!(
        propose(0x30, 0x20).await,
        KeyProposed::Taken,
        "a key that has ended never comes back"
    );
    let stolen = delegate(0x22, "thief", 0x20);
    assert_eq!(
        enrol(stolen, NOW).await,
        Enrolment::Denied(EnrolmentDenied::KeyTaken)
    );

    assert_eq!(propose(0x30, 0x31).await, KeyProposed::Accepted);
    assert!(store.revoke_delegate(id).await.unwrap());
    assert_eq!(propose(0x30, 0x32).await, KeyProposed::NotInForce);
    assert!(!store.use_key(id, &[0x31; 32], after(7)).await.unwrap());
    let for_return = JoinTokenRecord {
        id: TypedUuid::from_untyped_uuid(uuid::Uuid::from_u128(0x73)),
        delegate: Some(id),
        hash: [7; 32],
        ..token
    };
    store.create_join_token(&for_return).await.unwrap();
    let back = delegate(0x23, "turner", 0x33);
    assert_eq!(
        store
            .enrol_delegate(&[7; 32], &back, after(8))
            .await
            .unwrap(),
        Enrolment::Renewed(id)
    );
    assert_eq!(keys().await, (0x33, after(8), None));
    let ended = store.ended_keys(id).await.unwrap();
    let mut all: Vec<_> = ended
        .iter()
        .map(|key| (key.public_key[0], key.ended))
        .collect();
    all.sort_unstable();
    assert_eq!(all, [(0x20, after(5)), (0x30, after(8)), (0x31, after(8))]);
    for delegate in [id, other.id] {
        store.revoke_delegate(delegate).await.unwrap();
    }
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
    assert_eq!(store.join_tokens().await.unwrap().len(), 2, "kept a month");
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
