/** A way to the server that a test can cut. */

import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A relay of TCP connections on this machine. */
export interface Relay {
  readonly target: string;
  /** Breaks all connections, as a power cut between the two would; new ones are taken. */
  cut(): void;
  /** Ends it: nothing listens there any more. */
  close(): Promise<void>;
}

/** Returns a relay to a server, at a port if one is named. */
export async function relayTo(target: string, port = 0): Promise<Relay> {
  const sockets = new Set<Socket>();
  const [host = "", serverPort = ""] = target.split(":");
  const server = createServer((near) => {
    const far = connect(Number(serverPort), host);
    const join = (from: Socket, to: Socket): void => {
      sockets.add(from);
      from.on("error", () => undefined);
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    };
    join(near, far);
    join(far, near);
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const cut = (): void => sockets.forEach((socket) => void socket.resetAndDestroy());
  return {
    target: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut,
    async close() {
      const closed = once(server, "close");
      server.close();
      cut();
      await closed;
    },
  };
}
