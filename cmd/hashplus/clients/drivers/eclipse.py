"""Runs one file of the Eclipse interoperability suite, unchanged.

    eclipse.py FILE PORT [TEST...]

The file takes the port from its command line and then hands that same command
line to unittest, which does not know it; so unittest.main is replaced. It
prints "RESULT <json>" a test as each one ends, for eclipse_nightly_test.go.
"""

import json
import os
import runpy
import signal
import sys
import time
import unittest


LIMIT = 90  # seconds for one test; some loop for ever when they fail


class Endless(Exception):
    """Not TimeoutError, which the suite takes for that of a socket and goes on."""


def give_up(_signal, _frame):
    raise Endless("the test had not ended after %d seconds" % LIMIT)


class Report(unittest.TestResult):
    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()
        signal.alarm(LIMIT)
        self.tell(test, "start")

    def stopTest(self, test):
        signal.alarm(0)
        super().stopTest(test)

    def tell(self, test, outcome, why=""):
        name = getattr(test, "_testMethodName", str(test))
        took = time.monotonic() - getattr(self, "began", time.monotonic())
        print("RESULT " + json.dumps({"test": name, "outcome": outcome, "seconds": round(took, 2), "why": why}), flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.tell(test, "ok")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.tell(test, "failed", self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self.tell(test, "failed", self.errors[-1][1])

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.tell(test, "skipped", reason)


def main():
    module = sys.modules["__main__"]
    if names:
        suite = unittest.TestSuite(module.Test(name) for name in names)
    else:
        suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    sys.exit(not suite.run(Report()).wasSuccessful())


path, port, *names = sys.argv[1:]
signal.signal(signal.SIGALRM, give_up)
unittest.main = main
sys.path.insert(0, os.path.dirname(path))
sys.argv = [path, "--port", port]
runpy.run_path(path, run_name="__main__")
