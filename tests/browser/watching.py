"""Sees whether anything in a page was run, loaded or sent that isn't the server's own."""

from playwright.sync_api import BrowserContext

# What hostile texts try to do, if they are run at all: call this, wherever they stand.
CALLED = "pwned"
# Runs before anything else in every page. What a policy has kept from happening counts, too: the text
# was more than text then.
_IN_PAGES = """
    document.addEventListener("securitypolicyviolation", event =>
        pwned(`the policy stopped ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
_LOOK = """() => {
    const found = [];
    const own = [...document.scripts].every(script => script.src.startsWith(location.origin + "/assets/"));
    if (!own) found.push("a script that isn't the server's");
    for (const element of document.querySelectorAll("*")) {
        const name = element.localName;
        if (["iframe", "object", "embed", "base", "img", "video", "audio", "style", "math", "frame"].includes(name))
            found.push(`an element ${name}`);
        for (const { name: attribute, value } of element.attributes) {
            if (attribute.startsWith("on")) found.push(`an attribute ${attribute}`);
            if (attribute === "style") found.push("a style");
            if (["href", "src", "action", "formaction", "xlink:href"].includes(attribute)
                && !/^(https?:|mailto:|\\/|\\?|#)/i.test(value)) found.push(`${attribute}=${value}`);
            if (["src", "action", "formaction"].includes(attribute)
                && !new URL(value, location).href.startsWith(location.origin + "/"))
                found.push(`${attribute}=${value}`);
        }
    }
    if (/[\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069]/.test(
        document.documentElement.outerHTML)) found.push("a control character");
    return found;
}"""


class Watching:
    """Watches all pages of a context; ``server`` is the only address that they may ask."""

    def __init__(self, context: BrowserContext, server: str) -> None:
        self._context = context
        self._server = server
        self._found: list[str] = []
        context.expose_function(CALLED, lambda what="": self._found.append(f"run: {what}"))
        context.add_init_script(_IN_PAGES)
        context.on("request", self._request)
        context.on("dialog", self._dialog)
        context.on("weberror", lambda error: self._found.append(f"error: {error.error}"))
        context.on("page", lambda page: page.on("popup", self._popup))

    def found(self) -> list[str]:
        """Tell what was seen since the last time; the pages are looked at as they are now, too."""
        for page in self._context.pages:
            if not page.is_closed() and page.url.startswith(self._server):
                self._found += page.evaluate(_LOOK)
        found, self._found = self._found, []
        return found

    def _request(self, request) -> None:
        if not request.url.startswith((self._server + "/", "blob:")):
            self._found.append(f"request: {request.url}")

    def _dialog(self, dialog) -> None:
        self._found.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _popup(self, page) -> None:
        self._found.append(f"window: {page.url}")
