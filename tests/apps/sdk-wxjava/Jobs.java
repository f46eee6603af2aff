import cn.binarywang.wx.miniapp.api.WxMaService;
import cn.binarywang.wx.miniapp.api.impl.WxMaServiceImpl;
import cn.binarywang.wx.miniapp.bean.WxMaCodeLineColor;
import cn.binarywang.wx.miniapp.bean.WxMaSubscribeMessage;
import cn.binarywang.wx.miniapp.bean.security.WxMaMsgSecCheckCheckRequest;
import cn.binarywang.wx.miniapp.config.impl.WxMaDefaultConfigImpl;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.security.MessageDigest;
import me.chanjar.weixin.common.error.WxErrorException;

/**
 * An app that uses WxJava as its documentation tells: does the jobs of {@code tests/sdks.rs} for the input in its
 * argument, and prints what came of them. Secret values are printed as their SHA-256, because what it prints is an
 * output.
 */
public class Jobs {
    private final WxMaService app;
    private final JsonObject given;

    private Jobs(JsonObject given) {
        var config = new WxMaDefaultConfigImpl();
        config.setAppid(text(given, "appid"));
        config.setSecret(text(given, "secret"));
        config.setApiHostUrl(text(given, "base"));
        app = new WxMaServiceImpl();
        app.setWxMaConfig(config);
        this.given = given;
    }

    public static void main(String[] args) throws Exception {
        System.out.println(new Jobs(JsonParser.parseString(args[0]).getAsJsonObject()).run());
    }

    private JsonObject run() throws Exception {
        var results = new JsonObject();
        var session = app.getUserService().getSessionInfo(text(given, "login_code"));
        results.addProperty("openid", session.getOpenid());
        results.addProperty("session_key", digest(session.getSessionKey()));
        var phone = app.getUserService().getPhoneNumber(text(given, "phone_code"));
        results.addProperty("phone", digest(phone.getPurePhoneNumber()));

        var message = new WxMaSubscribeMessage();
        message.setToUser(session.getOpenid()).setTemplateId(text(given, "template"));
        var fields = given.getAsJsonObject("message");
        for (var name : fields.keySet()) {
            message.addData(new WxMaSubscribeMessage.MsgData(name, text(fields, name)));
        }
        // It throws when WeChat refuses, and tells nothing when it does not.
        app.getSubscribeService().sendSubscribeMsg(message);
        results.addProperty("message_sent", true);

        var code = code(text(given, "scene"));
        results.addProperty("code", digest(code));
        results.addProperty("refused", errcodeOfCode(text(given, "long_scene")));
        var media = app.getMediaService().uploadMedia("image", "jpg", new ByteArrayInputStream(code));
        var download = app.getMediaService().getMedia(media.getMediaId());
        results.addProperty("download", digest(Files.readAllBytes(download.toPath())));
        Files.delete(download.toPath());

        results.addProperty("harmless", check(text(given, "harmless"), session.getOpenid()));
        results.addProperty("risky", check(text(given, "risky"), session.getOpenid()));
        return results;
    }

    private byte[] code(String scene) throws WxErrorException {
        var black = new WxMaCodeLineColor("0", "0", "0");
        return app.getQrcodeService().createWxaCodeUnlimitBytes(scene, "", true, "release", 430, false, black, false);
    }

    private int errcodeOfCode(String scene) {
        try {
            code(scene);
            return 0;
        } catch (WxErrorException error) {
            return error.getError().getErrorCode();
        }
    }

    private String check(String content, String openid) throws WxErrorException {
        var request = WxMaMsgSecCheckCheckRequest.builder().version("2").scene(2).openid(openid).content(content);
        return app.getSecurityService().checkMessage(request.build()).getResult().getSuggest();
    }

    private static String text(JsonObject object, String name) {
        return object.get(name).getAsString();
    }

    private static String digest(String of) throws Exception {
        return digest(of.getBytes(StandardCharsets.UTF_8));
    }

    private static String digest(byte[] of) throws Exception {
        var hex = new StringBuilder();
        for (var octet : MessageDigest.getInstance("SHA-256").digest(of)) {
            hex.append(String.format("%02x", octet));
        }
        return hex.toString();
    }
}
