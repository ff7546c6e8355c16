/** The part of `@fluidauth/express` 1.1 that uses a store. The package itself is in no registry. */
declare module "@fluidauth/express" {
  export interface ISessionData {
    sessionId: string;
    userId: string;
    expires: string;
  }

  export abstract class BaseSessionStore {
    abstract db: unknown;
    abstract create(sessionData: ISessionData): Promise<void> | void;
    abstract update(sessionId: string, sessionData: ISessionData): Promise<void> | void;
    abstract delete(sessionId: string): Promise<void> | void;
    abstract get(sessionId: string): Promise<ISessionData | null> | (ISessionData | null);
    abstract clean(): void | Promise<void>;
  }

  export interface Request {
    cookies: Record<string, string>;
  }

  export interface Response {
    clearCookie(name: string): this;
  }

  export interface ISessionConfig {
    secret: string;
    name?: string;
    store?: BaseSessionStore;
    sessionDuration?: number;
  }

  export class Session {
    constructor(config: ISessionConfig);
    sessionInfo: { name: string; secret: string };
    store: BaseSessionStore;
    serializeUser: (user: object) => unknown;
    manageSession(req: Request, res: Response, next: (error?: unknown) => void): Promise<void>;
    createSession(req: Request, res: Response, user: object): Promise<void>;
    destroySession(req: Request, res: Response): Promise<void>;
    private initialize(req: Request, res: Response): void;
    private decryptSessionId(cookie: string): string;
  }

  export class AuthService {
    constructor(config: { session: Session });
  }
}
