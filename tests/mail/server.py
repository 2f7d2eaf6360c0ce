"""A real mail server (aiosmtpd) for tests: prints its port, then each message that it took as a line of JSON.

--auth USER:PASSWORD asks for them, --refuse ADDRESS refuses that recipient for good, --defer ADDRESS for now (always), --port takes a certain port,
--tls CERTIFICATE KEY offers STARTTLS and takes no mail without it.
"""

import argparse
import asyncio
import json
import ssl

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    def __init__(self, refused, deferred):
        self.refused = refused
        self.deferred = deferred

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.refused:
            return "550 no such user here"
        if address in self.deferred:
            return "451 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        message = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "user": session.auth_data and session.auth_data.login.decode(),
            "tls": session.ssl is not None,
            "data": envelope.content.decode(),
        }
        print(json.dumps(message), flush=True)
        return "250 taken"


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--auth")
    parser.add_argument("--refuse", action="append", default=[])
    parser.add_argument("--defer", action="append", default=[])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", nargs=2)
    arguments = parser.parse_args()

    options = {}
    if arguments.auth:
        user, password = arguments.auth.encode().split(b":", 1)

        def authenticate(server, session, envelope, mechanism, data):
            known = (data.login, data.password) == (user, password)
            return AuthResult(success=known, handled=known, auth_data=data)

        options = {"auth_required": True, "auth_require_tls": bool(arguments.tls), "authenticator": authenticate}
    if arguments.tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*arguments.tls)
        options |= {"tls_context": context, "require_starttls": True}

    handler = Handler(arguments.refuse, arguments.defer)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, **options), "127.0.0.1", arguments.port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
