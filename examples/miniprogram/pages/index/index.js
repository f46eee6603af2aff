// One page with what a phone does: log in, say who it is, give its number, upload a picture, be notified, write.
const sidecar = require('../../wx-sidecar.js');

const TEMPLATE = 'your-template-id';

Page({
  data: { me: null, phoneNumber: '', picture: '', notified: false, error: '' },

  /** The first request logs in. */
  whoAmI() {
    return this.show(sidecar.request({ url: '/me' }), ({ data }) => ({ me: data }));
  },

  /** The app's route decrypts on the way. The code of newer base libraries goes to the sidecar itself. */
  onPhoneNumber({ detail }) {
    const app = getApp();
    const found = app.globalData.simulator
      ? app.simulated('/_sim/encrypt', { user: app.globalData.user, kind: 'phone' })
      : Promise.resolve(detail);
    return this.show(found.then((it) => {
      if (it.code || !it.encryptedData) return sidecar.getPhoneNumber(it);
      const { encryptedData, iv } = it;
      return sidecar.request({ url: '/phone', method: 'POST', data: { encryptedData, iv } }).then(({ data }) => data);
    }), ({ phoneNumber }) => ({ phoneNumber }));
  },

  /** To WeChat, and back by a URL that <image> can load. */
  uploadPicture() {
    const chosen = new Promise((success, fail) => wx.chooseMedia({ count: 1, mediaType: ['image'], sizeType: ['compressed'], success, fail }));
    return this.show(
      chosen.then(({ tempFiles }) => sidecar.upload({ filePath: tempFiles[0].tempFilePath })),
      ({ data }) => ({ picture: data.url }),
    );
  },

  /** A yes of the user's is good for one message. */
  notify() {
    const asked = new Promise((resolve) => wx.requestSubscribeMessage({ tmplIds: [TEMPLATE], complete: resolve }));
    return this.show(asked.then(() => sidecar.request({ url: '/notify', method: 'POST' })), () => ({ notified: true }));
  },

  logout() {
    return this.show(sidecar.logout(), () => ({ me: null, phoneNumber: '', picture: '', notified: false }));
  },

  /** Puts on the page what comes of it, or why nothing does. */
  show(promise, data) {
    return promise.then(
      (answer) => this.setData({ error: '', ...data(answer) }),
      (error) => this.setData({ error: error.hint || error.message || error.errMsg }),
    );
  },
});
