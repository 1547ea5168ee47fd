//! Ports that gitspaces share. The gitspaces are those of the suite.

use super::{after, id};
use store::{SharedPortRecord, Store};
use wire::{gitspace::PortVisibility, ids::GitspaceUuid};

fn shared(gitspace: GitspaceUuid, port: u16, visibility: PortVisibility) -> SharedPortRecord {
    SharedPortRecord {
        gitspace,
        port,
        visibility,
        user: id(1),
        created: after(u64::from(port)),
    }
}

pub(crate) async fn ports(store: &dyn Store) {
    let live = store.live_gitspaces().await.unwrap();
    let gitspace = live.first().expect("the suite has one").id;
    assert_eq!(store.shared_ports(gitspace).await.unwrap(), []);
    let high = shared(gitspace, 8080, PortVisibility::Project);
    let low = shared(gitspace, 3000, PortVisibility::Public);
    store.share_port(&high).await.unwrap();
    store.share_port(&low).await.unwrap();
    let both = [low.clone(), high];
    assert_eq!(store.shared_ports(gitspace).await.unwrap(), both);
    assert_eq!(store.all_shared_ports().await.unwrap(), both);
    // The later word counts.
    let changed = SharedPortRecord {
        visibility: PortVisibility::Public,
        created: after(9000),
        ..shared(gitspace, 8080, PortVisibility::Public)
    };
    store.share_port(&changed).await.unwrap();
    assert!(store.unshare_port(gitspace, 3000).await.unwrap());
    assert!(!store.unshare_port(gitspace, 3000).await.unwrap());
    assert_eq!(store.shared_ports(gitspace).await.unwrap(), [changed]);
    store
        .share_port(&shared(id(0xdead), 1, PortVisibility::Public))
        .await
        .unwrap_err();
}
