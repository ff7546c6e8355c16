// Features of TypeScript 5.2 and later. See ../types.test.js.
import { ConnectStore, MemoryStore } from "@fluidauth/native-store";

export async function countOne(): Promise<number> {
  await using store = new MemoryStore();
  await using connect = new ConnectStore(store);
  return (await store.size()) - (await connect.length());
}
