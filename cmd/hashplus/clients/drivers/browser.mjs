// Clients in headless Chromium. Requests with a client go to the library that
// they name, on the page that the request "open" loaded; the rest drive pages
// as a person would.
//
//   node browser.mjs EXECUTABLE [HOST-RULE]
//
// HOST-RULE is passed to --host-resolver-rules.
import { chromium } from 'playwright-core'
import { emit, serve } from './lines.mjs'

const [executablePath, rules] = process.argv.slice(2)
const args = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]
if (rules) args.push(`--host-resolver-rules=${rules}`)

// Its profile is a new empty folder, which goes with the browser.
const browser = await chromium.launch({ executablePath, headless: true, args })
const pages = new Map()

// open loads url in a new tab, which shares its cookies with the page beside, or
// with none.
async function open(name, url, beside) {
  const context = beside ? pages.get(beside).context() : await browser.newContext()
  const page = await context.newPage()
  page.setDefaultTimeout(60000)
  page.on('pageerror', (error) => process.stderr.write(`${url}: ${error}\n`))
  page.on('console', (message) => process.stderr.write(`${url}: ${message.text()}\n`))
  await page.exposeFunction('report', emit)
  await page.goto(url)
  pages.set(name, page)
}

serve(
  async (request) => {
    const { page: name = 'main', ...args } = request.args ?? {}
    if (request.op === 'open') return open(name, args.url, args.beside)
    const page = pages.get(name)
    if (!page) throw new Error(`no page ${name}`)
    if (request.client) return page.evaluate((r) => window.handle(r), { ...request, args })
    switch (request.op) {
      case 'dial':
        return page.evaluate((how) => window.dial(how), args)
      case 'go':
        await page.goto(args.url)
        return {}
      case 'wait':
        await page.waitForFunction(args.script)
        return {}
      case 'fill':
        await page.fill(args.selector, args.text)
        return {}
      case 'click':
        await page.click(args.selector)
        return {}
      case 'text':
        return { text: await page.textContent(args.selector) }
      case 'close':
        pages.delete(name)
        await page.close()
        if (page.context().pages().length === 0) await page.context().close()
        return {}
    }
    throw new Error(`no operation ${request.op}`)
  },
  () => browser.close(),
)
