"""A visit of the page in Chromium."""

from playwright import sync_api

from tests.serve.serving import image

DESK = {"width": 1000, "height": 900}
expect = sync_api.expect
expect.set_options(timeout=60_000)


class Visit:
    """Page in Chromium; records its errors and requests."""

    def __init__(self, browser: object, url: str, **settings: object) -> None:
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        # With a listener, Chromium opens no real file dialog.
        self.page.on("filechooser", lambda chooser: None)
        self.wrong: list[str] = []
        self.requested: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.goto(url)

    def choose(self, data: bytes, name: str = "beach.jpg", kind: str = "image/jpeg") -> None:
        self.choose_all({name: data}, kind)

    def choose_all(self, files: dict[str, bytes], kind: str = "image/jpeg") -> None:
        several = [{"name": name, "mimeType": kind, "buffer": data} for name, data in files.items()]
        self.page.locator("#choose").set_input_files(several)

    def predict(self) -> None:
        """Choose an image and wait for its answer."""
        self.choose(image(1, 200, 100))
        expect(self.status).to_contain_text("1 person found")

    @property
    def status(self) -> object:
        return self.page.get_by_role("status")

    def has_sideways_scroll(self) -> bool:
        return self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


GIVE = """([kind, holder, name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/jpeg" }));
  const event = new Event(kind, { bubbles: true, cancelable: true });
  Object.defineProperty(event, holder, { value: data });
  document.querySelector("#drop").dispatchEvent(event);
}"""
