// The sample's start: says where the sidecar is. All else is in pages/index.
const sidecar = require('./wx-sidecar.js');

// What `make dev` runs. Yours is https://your.domain, listed at mp.weixin.qq.com as a server domain (request, uploadFile).
const BASE = 'http://127.0.0.1:8080';
// With a simulator in WeChat's place, codes and ciphertext come from there, and touristappid will do: no account is
// needed. With WeChat, write '' here and your AppID into project.config.json.
const SIMULATOR = 'http://127.0.0.1:9902';
const USER = 'alice';

App({
  globalData: { simulator: SIMULATOR, user: USER },

  onLaunch() {
    sidecar.init({ baseUrl: BASE, getCode: SIMULATOR ? () => this.simulated(`/_sim/code?user=${USER}`).then((it) => it.code) : undefined });
  },

  /** Asks the simulator. */
  simulated(path, data) {
    return new Promise((resolve, reject) => {
      wx.request({ url: SIMULATOR + path, method: data ? 'POST' : 'GET', data, success: (answer) => resolve(answer.data), fail: reject });
    });
  },
});
