// Types that a signature on a page may use, and the types that it may belong to.

import type * as stores from "@fluidauth/native-store";
import type * as connect from "@fluidauth/native-store/connect";

declare global {
  type ConnectSessionEntry<Data extends object> = connect.ConnectSessionEntry<Data>;
  type GuardableSession = stores.GuardableSession;
  type OwnedSession<Data extends object> = connect.OwnedSession<Data>;
  type SessionEntry<Fields extends object> = stores.SessionEntry<Fields>;
  type SessionInput<Fields extends object> = stores.SessionInput<Fields>;
  type SessionStore = stores.SessionStore;
  type StoreDescription = stores.StoreDescription;
  type StoredSession<Fields extends object> = stores.StoredSession<Fields>;
  type StoreStats = stores.StoreStats;
  type Verification = stores.Verification;

  type Fields = { anything?: string };
  type Data = connect.ConnectSession;
  /** Whether an exported type of this package has the members. */
  type Has<Members> =
    stores.FileStore<Fields> extends Members
      ? true
      : connect.ConnectStore<Data> extends Members
        ? true
        : typeof stores extends Members
          ? true
          : "nothing has these members";
}
