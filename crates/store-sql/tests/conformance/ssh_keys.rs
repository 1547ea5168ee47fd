//! SSH public keys.

use super::{NOW, after, conflict, id};
use store::{SshKeyRecord, Store};

const KEYS: [&str; 2] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPe2uGPLYg8zQVXu9Tq1UkcB4GVy1xZ3YtUAZwzPyE1o",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB",
];

fn key(number: u8, user: u128) -> SshKeyRecord {
    SshKeyRecord {
        id: id(0x50 + u128::from(number)),
        user: id(user),
        name: "laptop".to_owned(),
        key: KEYS[usize::from(number)].parse().unwrap(),
        fingerprint: [number; 32],
        last_used: None,
        created: after(u64::from(number)),
    }
}

pub(crate) async fn ssh_keys(store: &dyn Store) {
    let (first, second) = (key(0, 1), key(1, 1));
    store.create_ssh_key(&first).await.unwrap();
    store.create_ssh_key(&second).await.unwrap();
    let (found, owner) = store
        .ssh_key_by_fingerprint(&[0; 32])
        .await
        .unwrap()
        .expect("found");
    assert_eq!((found, owner.name.as_str()), (first.clone(), "ann"));
    assert_eq!(store.ssh_key_by_fingerprint(&[9; 32]).await.unwrap(), None);
    // Whoever comes second, with whatever name.
    let again = SshKeyRecord {
        id: id(0x59),
        user: id(2),
        ..first.clone()
    };
    assert_eq!(conflict(store.create_ssh_key(&again).await), "SSH key");
    assert_eq!(
        store.ssh_keys(id(1)).await.unwrap(),
        [second.clone(), first.clone()],
        "newest first"
    );
    assert_eq!(store.ssh_keys(id(2)).await.unwrap(), []);

    store.touch_ssh_key(first.id, after(5)).await.unwrap();
    store.touch_ssh_key(first.id, NOW).await.unwrap();
    assert_eq!(
        store.ssh_keys(id(1)).await.unwrap()[1].last_used,
        Some(after(5))
    );

    assert_eq!(store.ssh_key_owner(first.id).await.unwrap(), Some(id(1)));
    assert_eq!(store.ssh_key_owner(again.id).await.unwrap(), None);
    assert!(!store.delete_ssh_key(first.id, id(2)).await.unwrap());
    assert!(store.delete_ssh_key(first.id, id(1)).await.unwrap());
    assert!(!store.delete_ssh_key(first.id, id(1)).await.unwrap());
    // It is free again.
    store.create_ssh_key(&again).await.unwrap();
    assert!(store.delete_ssh_key(again.id, id(2)).await.unwrap());
    assert!(store.delete_ssh_key(second.id, id(1)).await.unwrap());
}
