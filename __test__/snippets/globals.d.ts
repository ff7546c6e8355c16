// Names that a JavaScript fragment on a page may use without an import. Other names are errors only if they start with
// a capital letter: see ../support/snippets.js.

import type * as stores from "@fluidauth/native-store";
import type * as connect from "@fluidauth/native-store/connect";

declare global {
  const FileStore: typeof stores.FileStore;
  const MemoryStore: typeof stores.MemoryStore;
  const RedisStore: typeof stores.RedisStore;
  const SessionStoreError: typeof stores.SessionStoreError;
  const guardSession: typeof stores.guardSession;
  const ConnectStore: typeof connect.ConnectStore;
  // biome-ignore lint/suspicious/noExplicitAny: with whatever fields the page speaks of
  type Any = any;
  /** Any store: its methods and their options are checked. */
  const store: stores.FileStore<Any> & stores.RedisStore<Any> & connect.ConnectStore<Any>;
}
