"""A mail server of its own make, for tests: takes mail as the recipient's name says, and prints each as one line of JSON.

    receive.py PORT TLS [CERT KEY] [USER:PASSWORD]      TLS: none, starttls or tls

Recipients whose name begins so are treated apart; all others are taken.
    grey    451 for the first try of each Message-ID's recipient, then taken
    no      550
    cut     the first mail is read to its end, printed, and the connection is cut instead of an answer
What Python's own parser makes of a mail is printed, so that belayd's words are read by somebody else's rules.
"""

import asyncio
import email
import email.policy
import hashlib
import json
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


class Handler:
    def __init__(self):
        self.tried = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split("@")[0]
        if name.startswith("no"):
            return f"550 5.1.1 <{address}>: Recipient address rejected: nobody is called so"
        if name.startswith("grey") and address not in self.tried:
            self.tried.add(address)
            say({"refused": address})
            return "451 4.7.1 greylisted, come again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        text, html = mail.get_body(("plain",)), mail.get_body(("html",))
        cut = envelope.rcpt_tos[0].startswith("cut") and "cut" not in self.tried
        say({
            "from": envelope.mail_from, "to": envelope.rcpt_tos, "subject": str(mail["Subject"]), "headerFrom": str(mail["From"]),
            "headerTo": str(mail["To"]), "messageId": str(mail["Message-ID"]), "names": [name.lower() for name in mail.keys()],
            "autoSubmitted": mail["Auto-Submitted"], "deliveryId": mail["Belayd-Delivery-Id"], "repeat": mail["Belayd-Possible-Repeat"],
            "text": text.get_content() if text else None, "html": html.get_content() if html else None,
            "attachments": [[part.get_filename(), hashlib.sha256(part.get_payload(decode=True)).hexdigest()] for part in mail.iter_attachments()],
            "defects": [str(defect) for part in mail.walk() for defect in part.defects],
            "tls": session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None,
            "user": session.auth_data if isinstance(session.auth_data, str) else None, "cut": cut,
        })
        if cut:
            self.tried.add("cut")
            server.transport.abort()
            await asyncio.sleep(60)
        return "250 2.0.0 taken as " + str(mail["Belayd-Delivery-Id"])


def say(thing):
    print(json.dumps(thing), flush=True)


def main():
    port, tls, rest = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    more = {}
    if tls != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(rest.pop(0), rest.pop(0))
        more = {"ssl_context": context} if tls == "tls" else {"tls_context": context, "require_starttls": True}
    if rest:
        user, password = rest[0].split(":")

        def signed_in(server, session, envelope, mechanism, data):
            good = data.login == user.encode() and data.password == password.encode()
            return AuthResult(success=good, handled=False, auth_data=user if good else None)

        more |= {"authenticator": signed_in, "auth_required": True, "auth_require_tls": False}
    server = Controller(Handler(), hostname="127.0.0.1", port=port, enable_SMTPUTF8=True, **more)
    server.start()
    say({"ready": True})
    # Until the test that asked for it lets go of stdin.
    sys.stdin.read()
    server.stop()


main()
