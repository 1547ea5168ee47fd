//! Typed ids: a task's id cannot be passed where a gitspace's is asked for.

use newtype_uuid::{TypedUuid, TypedUuidKind, TypedUuidTag};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $alias:ident, $tag:literal;)*) => {$(
        #[doc = concat!("The kind behind [`", stringify!($alias), "`].")]
        #[derive(Clone, Copy, Debug)]
        pub enum $kind {}
        impl TypedUuidKind for $kind {
            fn tag() -> TypedUuidTag {
                const TAG: TypedUuidTag = TypedUuidTag::new($tag);
                TAG
            }
        }
        $(#[$doc])*
        pub type $alias = TypedUuid<$kind>;
    )*};
}

kinds! {
    /// A gitspace, for its whole life.
    GitspaceKind, GitspaceUuid, "gitspace";
    /// One task given to a runner; the unit of exactly-once effects.
    TaskKind, TaskUuid, "task";
    DelegateKind, DelegateUuid, "delegate";
    UserKind, UserUuid, "user";
    /// A personal access token's record, not the token.
    AccessTokenKind, AccessTokenUuid, "access_token";
    JoinTokenKind, JoinTokenUuid, "join_token";
    InfraProviderKind, InfraProviderUuid, "infra_provider";
    /// A resource class offered by an infra provider.
    MachineKind, MachineUuid, "machine";
    GatewayKind, GatewayUuid, "gateway";
    GrantKind, GrantUuid, "grant";
    GitCredentialKind, GitCredentialUuid, "git_credential";
    /// A registered SSH public key; also the id of every grant that is given for it.
    SshKeyKind, SshKeyUuid, "ssh_key";
    /// One user action, through every process it touches.
    TraceKind, TraceUuid, "trace";
    /// One life of a link's sender; its sequence numbers belong to it.
    StreamKind, StreamUuid, "stream";
    /// An SSH session that may change its line.
    SshSessionKind, SshSessionUuid, "ssh_session";
    /// A terminal inside a gitspace.
    TerminalKind, TerminalUuid, "terminal";
}
