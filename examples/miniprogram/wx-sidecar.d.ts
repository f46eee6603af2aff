/** Types of wx-sidecar.js, which says what each function does. They need no other package. */

export interface InitOptions {
  /** Where the sidecar is, such as `https://api.example.com`. Tokens go nowhere else. */
  baseUrl: string;
  /** `[inbound] prefix` of the sidecar; `/wx` by default. */
  prefix?: string;
  /** Milliseconds, for all calls that name none. */
  timeout?: number;
  /** Of errors, such as `zh-CN`; without it the phone's own, or English. */
  language?: string;
  /** Gives codes in place of `wx.login`: for a simulator. */
  getCode?: () => string | Promise<string>;
}

/** What a failure is: the sidecar's or the app's answer from status 400 on, or wx's `fail`. */
export interface SidecarError extends Error {
  /** Of the answer; absent if there was none. */
  status?: number;
  /** wx's text, such as `request:fail timeout`. */
  errMsg: string;
  errno?: number;
  /** Of problem+json (RFC 9457), such as `urn:wx-sidecar:problem:decrypt-failed`. */
  type?: string;
  title?: string;
  detail?: string;
  /** The request id, which is in the sidecar's log. */
  instance?: string;
  /** Where WeChat refused: its number, its text, and what to do. */
  errcode?: number;
  errmsg?: string;
  rid?: string;
  class?: string;
  retryable?: boolean;
  hint?: string;
  /** The answer's body, parsed if it is JSON. */
  data?: unknown;
  header?: Record<string, string>;
}

export interface Answer<T = any> {
  statusCode: number;
  data: T;
  header: Record<string, string>;
  cookies?: string[];
  errMsg: string;
}

export interface Callbacks<A> {
  success?: (answer: A) => void;
  fail?: (error: SidecarError) => void;
  complete?: (outcome: A | SidecarError) => void;
}

interface Common<A> extends Callbacks<A> {
  header?: Record<string, string>;
  timeout?: number;
  /** Send no token: for public paths, and for the app's own login path. */
  anonymous?: boolean;
  /** Gets each RequestTask, UploadTask or DownloadTask; a retry makes a second one. */
  onTask?: (task: any) => void;
  /** Whatever else the function of wx takes. */
  [option: string]: any;
}

export interface RequestOptions<T = any> extends Common<Answer<T>> {
  /** A path such as `/me`, or a URL below `baseUrl`. */
  url: string;
  method?: 'OPTIONS' | 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'TRACE' | 'CONNECT';
  data?: string | object | ArrayBuffer;
  dataType?: string;
  responseType?: 'text' | 'arraybuffer';
}

export interface UploadOptions<T = any> extends Common<Answer<T>> {
  filePath: string;
  /** Absent: to WeChat, by the sidecar; then `data` is a `Medium`. */
  url?: string;
  name?: string;
  formData?: Record<string, any>;
}

export interface Medium {
  type: 'image' | 'voice' | 'video' | 'thumb';
  media_id: string;
  created_at: number;
  expires_at: number;
  filename?: string;
  /** Signed: for `<image src>`, without a token. */
  url: string;
}

export interface Download {
  statusCode: number;
  tempFilePath: string;
  filePath?: string;
  errMsg: string;
}

export interface DownloadOptions extends Common<Download> {
  url: string;
  filePath?: string;
}

export interface SocketOptions extends Callbacks<any> {
  url: string;
  header?: Record<string, string>;
  protocols?: string[];
  timeout?: number;
  anonymous?: boolean;
  [option: string]: any;
}

export interface ContainerOptions<T = any> extends Callbacks<ContainerAnswer<T>> {
  /** Ignored. */
  config?: { env?: string };
  path?: string;
  method?: RequestOptions['method'];
  header?: Record<string, string>;
  data?: any;
  dataType?: string;
  responseType?: 'text' | 'arraybuffer';
  timeout?: number;
  [option: string]: any;
}

export interface ContainerAnswer<T = any> {
  statusCode: number;
  header: Record<string, string>;
  data: T;
  cookies: string[];
  /** The sidecar's request id. */
  callID: string;
  errMsg: string;
}

/** `e.detail` of a button, or what wx gives with encrypted data. */
export interface Detail {
  code?: string;
  encryptedData?: string;
  iv?: string;
  rawData?: string;
  signature?: string;
  cloudID?: string;
  errMsg?: string;
}

export interface PhoneNumber {
  phoneNumber: string;
  purePhoneNumber: string;
  countryCode: string;
  watermark: { appid: string; timestamp: number };
}

export interface Session {
  openid: string;
  unionid?: string;
  appid: string;
  expires_in: number;
  started_at: number;
}

export interface Sidecar {
  init(options?: InitOptions): Sidecar;
  request<T = any>(options: RequestOptions<T>): Promise<Answer<T>>;
  upload<T = Medium>(options: UploadOptions<T>): Promise<Answer<T>>;
  download(options: DownloadOptions): Promise<Download>;
  /** A SocketTask. */
  connectSocket(options: SocketOptions): Promise<any>;
  callContainer<T = any>(options: ContainerOptions<T>): Promise<ContainerAnswer<T>>;
  getPhoneNumber(detail: Detail): Promise<PhoneNumber>;
  openData<T = any>(detail: Detail): Promise<T>;
  session(): Promise<Session>;
  login(): Promise<void>;
  logout(options?: { everywhere?: boolean }): Promise<void>;
}

export const init: Sidecar['init'];
export const request: Sidecar['request'];
export const upload: Sidecar['upload'];
export const download: Sidecar['download'];
export const connectSocket: Sidecar['connectSocket'];
export const callContainer: Sidecar['callContainer'];
export const getPhoneNumber: Sidecar['getPhoneNumber'];
export const openData: Sidecar['openData'];
export const session: Sidecar['session'];
export const login: Sidecar['login'];
export const logout: Sidecar['logout'];
